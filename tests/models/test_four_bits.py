"""4-bit weights are refused in one line where they cannot be, and asked for as the paper has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rlprm.data.store import TrajectoryStore
from rlprm.errors import ConfigError
from rlprm.models import loading
from rlprm.models.hub import four_bits
from rlprm.models.zero import size_of
from rlprm.prm.config import PRMConfig
from rlprm.rl.config import RLConfig
from rlprm.runtime.tuning import TuningConfig
from rlprm.stages import sft, train_prm, train_rl
from rlprm.stages.settings import SFTStageConfig

QLORA: dict[str, Any] = {"lora_r": 4, "load_in_4bit": True}


def test_weights_in_4_bits_are_never_trained_themselves() -> None:
    with pytest.raises(ConfigError, match=r"load_in_4bit: got true, allowed: with adapters only \(lora_r"):
        TuningConfig(load_in_4bit=True)


def run_stage(stage: str, folder: Path, **settings: Any) -> None:
    toy = {"environment": "tests.toys.corridor"}
    if stage == "sft":
        sft.run(SFTStageConfig(**toy, **settings))
    elif stage == "train-prm":
        TrajectoryStore.create(str(folder / "store"), {})
        train_prm.run(PRMConfig(trajectories=str(folder / "store"), **settings))
    else:
        train_rl.run(RLConfig(reward="outcome", advantage="turn_gae", **toy, **settings))


@pytest.mark.parametrize("stage", ["sft", "train-prm", "train-rl"])
def test_every_training_stage_refuses_them_without_a_gpu_before_it_begins(
    stage: str, tiny_folder: Path, tmp_path: Path
) -> None:
    out = str(tmp_path / "run")
    with pytest.raises(ConfigError, match="load_in_4bit: got true, but there is no GPU"):
        run_stage(stage, tmp_path, model=str(tiny_folder), output_dir=out, **QLORA)
    assert not (tmp_path / "run").exists()


def test_what_else_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(four_bits, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="bitsandbytes is missing; pip install bitsandbytes"):
        four_bits.require_4bit()
    monkeypatch.setattr(four_bits, "find_spec", lambda _: object())
    monkeypatch.setattr(four_bits, "zero_stage", lambda: 3)
    with pytest.raises(ConfigError, match="ZeRO-3 cannot split"):
        four_bits.require_4bit()


@pytest.mark.parametrize(
    "load", [loading.load_causal_lm, loading.load_scalar_model, loading.load_lm_reward_model]
)
def test_every_loader_refuses_them_itself(load: Any, tiny_folder: Path) -> None:
    with pytest.raises(ConfigError, match="there is no GPU"):
        load(str(tiny_folder), four_bits=True)


def test_two_packed_weights_a_byte_are_counted() -> None:
    packed = nn.Parameter(torch.zeros(32, 1, dtype=torch.uint8), requires_grad=False)
    packed.quant_state = object()  # type: ignore[attr-defined]  # as bitsandbytes marks its weights
    assert size_of(packed) == 64
    assert size_of(nn.Parameter(torch.zeros(8, 8))) == 64
