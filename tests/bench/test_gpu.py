"""The benchmark of a GPU: counts of FLOPs by hand, and a dry run of its parts with a tiny model."""

from __future__ import annotations

import argparse
import importlib
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "scripts" / "bench"
SHAPE = {
    "vocab_size": 50, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("gpu")


def test_flops_are_those_counted_by_hand(script: ModuleType) -> None:
    # A layer: queries and output 2 * 64, keys and values 2 * 8 * 4, gate, up and down 3 * 128.
    assert script.layer_weights(SHAPE) == 3 * (128 + 64 + 384) == 1728
    # Attention: 2 products of 2 * 8 a pair, half of 5 * 5 and 3 * 3 pairs, 3 layers; head: 2 * 8 * 50.
    by_hand = 2 * 1728 * 8 + 3 * 16 * (25 + 9) + 4 * 800
    assert script.forward_flops(SHAPE, [5, 3], 4) == by_hand


def test_the_weights_of_the_large_shape_are_those_of_qwen2_5_3b(script: ModuleType) -> None:
    large = script.SHAPES["3b"]
    whole = script.layer_weights(large) + large["vocab_size"] * large["hidden_size"]
    assert whole == pytest.approx(3.086e9, rel=1e-3)  # norms and biases aside


def test_utilisation_is_a_share_of_the_peak(script: ModuleType) -> None:
    assert script.rates(6e12, 2.0, 10, 30.0)["mfu"] == pytest.approx(0.1)
    assert script.rates(6e12, 2.0, 10, None)["mfu"] is None
    assert script.peak_of("NVIDIA H200") == 989
    assert script.peak_of("NVIDIA H100 PCIe") == 756
    assert script.peak_of("NVIDIA A10G") == 70
    assert script.peak_of("CPU") is None


@pytest.mark.parametrize("part", ["decode", "prm", "ppo"])
def test_a_part_runs_with_the_tiny_model(script: ModuleType, tmp_path: Path, part: str) -> None:
    given = argparse.Namespace(tiny=True, folder=tmp_path, peak_tflops=1.0)
    figures = script.run_part(part, given)
    assert figures["tokens"] > 0
    assert 0 < figures["mfu"] < 1
    assert figures["mfu"] == pytest.approx(figures["tflops_per_second"])
    if part == "decode":
        assert figures["tokens"] == 3 * 2 * 4  # episodes, turns, tokens a turn


def test_a_part_that_fails_or_is_too_slow_is_a_row_that_says_why(script: ModuleType, tmp_path: Path) -> None:
    assert script.in_own_process("decode", [], 5.0) == {"failed": "no time was left"}
    assert script.row("vllm", {"failed": "no vllm"}) == "| vllm | – | – | – | no vllm |"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_shell_says_so_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", str(FOLDER / "gpu.sh"), str(tmp_path / "gpu.json")],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "gpu.sh: there is no GPU; --tiny runs without one\n"
    assert not list(tmp_path.iterdir())
