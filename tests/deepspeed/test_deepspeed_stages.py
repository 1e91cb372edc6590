"""Stages launched by the command line's short form: what they leave is what one process leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification, AutoTokenizer

from rlprm.data.store import TrajectoryStore
from rlprm.models.manifest import Manifest
from rlprm.prm.config import PRMConfig
from rlprm.runtime.config import parse
from rlprm.runtime.record import read_record
from rlprm.scorers.checkpoint import CheckpointScorer
from rlprm.stages import sft
from rlprm.stages import train_prm as stage
from rlprm.stages.settings import SFTStageConfig
from tests.deepspeed.conftest import needs_deepspeed
from tests.deepspeed.launches import Launched, Launches
from tests.prm import toy
from tests.prm.toy import META

pytestmark = [pytest.mark.slow, pytest.mark.deepspeed, needs_deepspeed]

CORRIDOR = [
    "--environment", "tests.toys.corridor", "--env_kwargs.length", "5", "--prompt", "short",
    "--num_demonstrations", "12", "--workers", "1", "--max_steps", "3", "--learning_rate", "1e-3",
    "--lr_scheduler_type", "constant", "--use_cpu", "true", "--disable_tqdm", "true",
]  # fmt: skip


def rlprm(launches: Launches, name: str, *arguments: str) -> Launched:
    done = launches.run(name, ["-m", "rlprm.cli", *arguments, "--output_dir", str(launches.root / name)])
    assert done.status == 0, done.output[-3000:]
    return done


def test_deepspeed_a_policy_is_the_one_that_one_process_trains(launches: Launches, tmp_path: Path) -> None:
    settings = ["--model", str(launches.models / "policy"), *CORRIDOR, "--per_device_train_batch_size"]
    found = rlprm(launches, "sft", "sft", "--accelerate_config", "cpu_zero3", *settings, "2").folder
    sft.run(parse(SFTStageConfig, [*settings, "4", "--output_dir", str(tmp_path)]))
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (found, tmp_path))
    assert ours.keys() == theirs.keys()
    start = load_file(launches.models / "policy" / "model.safetensors")
    assert max((theirs[name] - start[name]).abs().max().item() for name in start) > 1e-3
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-5, rtol=0)
    records = [read_record(folder)["results"] for folder in (found, tmp_path)]
    for same in ("parameters", "trained_parameters", "demonstrations", "tokens"):
        assert records[0][same] == records[1][same] > 0
    policy, tokenizer = AutoModelForCausalLM.from_pretrained(found), AutoTokenizer.from_pretrained(found)
    assert policy.config.use_cache
    assert len(tokenizer) <= policy.config.vocab_size


def test_deepspeed_a_prm_with_adapters_is_a_stock_checkpoint_with_its_manifest(
    launches: Launches, tmp_path: Path
) -> None:
    TrajectoryStore.create(tmp_path / "rollouts", META).write(0, toy.separable(8))
    settings = [
        "--trajectories", str(tmp_path / "rollouts"), "--model", str(launches.models / "policy"),
        "--lora_r", "4", "--learning_rate", "1e-2", "--num_train_epochs", "2", "--bf16", "false",
        "--lr_scheduler_type", "constant", "--disable_tqdm", "true", "--use_cpu", "true",
        "--per_device_train_batch_size",
    ]  # fmt: skip
    arguments = ["train-prm", "--accelerate_config", "cpu_zero3", *settings, "4"]
    done = rlprm(launches, "prm", *arguments)
    stage.run(parse(PRMConfig, [*settings, "8", "--output_dir", str(tmp_path / "alone")]))
    found = done.folder
    ours, theirs = (AutoModelForTokenClassification.from_pretrained(f) for f in (found, tmp_path / "alone"))
    assert ours.score.weight.abs().max() > 1e-3
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0, msg=name)
    assert Manifest.load(found) == Manifest.load(tmp_path / "alone")
    records = [read_record(folder)["results"] for folder in (found, tmp_path / "alone")]
    assert records[0].pop("chat") == records[1].pop("chat")
    assert records[0] == pytest.approx(records[1], abs=1e-5)
    scores = [
        CheckpointScorer.load("prm", str(folder)).score(toy.separable(2)[:3])
        for folder in (found, tmp_path / "alone")
    ]
    for a, b in zip(*scores, strict=True):
        assert a.values == pytest.approx(b.values, abs=1e-5)
    assert done.output.count("rlprm:") == 0
