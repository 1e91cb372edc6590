"""What dtype auto stands for: by the size of the model and by what the processor is made for."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rlprm.errors import ConfigError
from rlprm.models import precision
from rlprm.models.hub import size
from rlprm.models.hub.size import count_weights
from rlprm.models.loading import load_causal_lm
from rlprm.models.precision import computes_in_bfloat16, resolve_dtype
from rlprm.prm.config import PRMConfig
from rlprm.prm.trainer import prm_arguments
from rlprm.runtime.config import parse

BIG = {"embed": (300, 200_000), "head": (4,)}


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    precision._say_once.cache_clear()
    return monkeypatch


@pytest.fixture
def big(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A folder of a few weights that says that they are many."""
    save_file({"head": torch.zeros(4)}, tmp_path / "model.safetensors")
    monkeypatch.setattr(size, "_shapes", lambda file: list(map(list, BIG.values())))
    return str(tmp_path)


def processor(patch: pytest.MonkeyPatch, **has: bool) -> None:
    patch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True, **has}, raising=False)


def test_weights_are_counted_in_files_without_loading_them(tiny_folder: Path, tmp_path: Path) -> None:
    policy = load_causal_lm(str(tiny_folder), dtype="float32")
    assert count_weights(str(tiny_folder)) == sum(p.numel() for p in policy.parameters())
    torch.save({"a": torch.zeros(1000)}, tmp_path / "pytorch_model.bin")
    assert count_weights(str(tmp_path)) == pytest.approx(1000, rel=0.5)


def test_a_damaged_file_counts_nothing_and_is_left_to_loading(tmp_path: Path) -> None:
    for content in (b"", b"1234567", b"\xff" * 40, b"\x02\0\0\0\0\0\0\0[]", b'\x08\0\0\0\0\0\0\0{"a": 1}'):
        (tmp_path / "model.safetensors").write_bytes(content)
        assert count_weights(str(tmp_path)) == 0


@pytest.mark.parametrize(
    ("has", "expected"),
    [({}, False), ({"amx_bf16": True}, True), ({"avx512_bf16": True}, True), ({"avx512_bf16": False}, False)],
)
def test_a_big_model_computes_in_bfloat16_on_processors_made_for_it(
    on_cpu: pytest.MonkeyPatch, big: str, has: dict[str, bool], expected: bool
) -> None:
    processor(on_cpu, **has)
    assert computes_in_bfloat16(big) is expected
    assert resolve_dtype("auto", big) is (torch.bfloat16 if expected else torch.float32)
    assert resolve_dtype("float32", big) is torch.float32


def test_a_small_model_and_one_that_is_yet_to_be_made_compute_in_float32(
    on_cpu: pytest.MonkeyPatch, tiny_folder: Path
) -> None:
    processor(on_cpu, amx_bf16=True)
    assert not computes_in_bfloat16(str(tiny_folder))
    assert not computes_in_bfloat16(None)
    assert resolve_dtype("auto") is torch.float32
    with pytest.raises(ConfigError, match="unknown dtype 'fp32'; known: auto, float32"):
        resolve_dtype("fp32")


def test_it_is_said_once(on_cpu: pytest.MonkeyPatch, big: str, caplog: pytest.LogCaptureFixture) -> None:
    processor(on_cpu, avx512_bf16=True)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert computes_in_bfloat16(big)
    (message,) = caplog.messages
    assert "60 million weights" in message
    assert "AVX512-BF16" in message
    assert "bf16 false" in message


def test_training_computes_in_bfloat16_too_and_a_setting_wins(on_cpu: pytest.MonkeyPatch, big: str) -> None:
    processor(on_cpu, amx_bf16=True)
    words = ["--model", big, "--trajectories", "t", "--output_dir", "o"]
    assert prm_arguments(parse(PRMConfig, words)).bf16
    assert not prm_arguments(parse(PRMConfig, [*words, "--bf16", "false"])).bf16
