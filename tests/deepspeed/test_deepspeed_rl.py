"""Agent RL in two processes under DeepSpeed is agent RL in one without."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from rlprm.data.rendering import ChatRenderer
from tests.deepspeed.conftest import needs_deepspeed
from tests.deepspeed.launches import ROOT, TIMEOUT, Launched, Launches
from tests.rl import walker
from tests.rl.conftest import assert_close
from tests.toys.manifests import manifest

pytestmark = [pytest.mark.slow, pytest.mark.deepspeed, needs_deepspeed]

# A reference in the loss, a critic of its own, several micro-batches, an odd number of episodes.
SETTINGS = (
    "--environment", "tests.toys.corridor", "--round_limit", "4", "--max_new_tokens", "3", "--wave_size", "4",
    "--tasks_per_iteration", "3", "--samples_per_task", "3", "--minibatches", "2",
    "--micro_batch_tokens", "96",
    "--iterations", "3", "--critic_warmup_iterations", "0", "--kl_coef", "0.1", "--learning_rate", "0.002",
    "--eval_every", "3", "--eval_tasks", "4", "--test_tasks", "0", "--repeat_probe", "2", "--save_every", "1",
    "--max_grad_norm", "0",  # DeepSpeed cuts policy and critic together, others each by itself
    "--reward", "progress", "--advantage", "turn_gae",
    "--select", "last",  # a policy that never succeeds would stay what it was
)  # fmt: skip
KINDS = {"plain": (), "adapters": ("--lora_r", "4"), "warmed": ("--critic_warmup_iterations", "1")}
UNKNOWN = ("ppo/policy_grad_norm", "ppo/critic_grad_norm")
"""Metrics that DeepSpeed does not have."""
CASES = [(1, "plain"), (2, "plain"), (3, "plain"), (3, "adapters")]


@pytest.fixture(scope="module")
def arguments(launches: Launches, renderer: ChatRenderer) -> list[str]:
    """The command line that all runs share; the PRM has a manifest."""
    folder = launches.root / "rl-prm"
    if not folder.exists():
        making = launches.root / f"rl-prm-{os.getpid()}"
        shutil.copytree(launches.models / "prm", making)
        manifest(renderer.template_hash, round_limit=4).save(making)
        making.rename(folder)
    models = ["--model", str(launches.models / "policy"), "--prm", str(folder)]
    return ["train-rl", *SETTINGS, *models]


@pytest.fixture(scope="module")
def walker_models(launches: Launches) -> tuple[Path, Path]:
    """A policy whose episodes end in both ways, and a PRM of them; a PRM learns from nothing else."""
    folders = launches.root / "walker" / "policy", launches.root / "walker" / "prm"
    with FileLock(launches.root / "walker.lock"):
        if not folders[1].exists():
            walker.make_policy(folders[0])
            walker.make_prm(folders[1], folders[0])
    return folders


def one(launches: Launches, arguments: list[str], kind: str) -> Path:
    """The folder of a run in one process."""
    seen = launches.run(
        f"rl-one-{kind}",
        [
            "-m",
            "rlprm.cli",
            *arguments,
            *KINDS[kind],
            "--output_dir",
            str(launches.root / f"rl-one-{kind}/run"),
        ],
    )
    assert seen.status == 0, seen.output[-3000:]
    return seen.folder / "run"


def launch_file(folder: Path, stage: int) -> str:
    """The launch file of a ZeRO stage; no recipe needs stage 0, which is DeepSpeed without ZeRO."""
    if stage:
        return f"ds_configs/cpu_zero{stage}.yaml"
    text = Path("ds_configs/cpu_zero1.yaml").read_text()
    file = folder / "zero0.yaml"
    file.write_text(text.replace("zero_stage: 1", "zero_stage: 0"))
    return str(file)


def two(launches: Launches, arguments: list[str], stage: int, kind: str) -> Launched:
    """A run in two processes."""
    name = f"rl-zero{stage}-{kind}"
    launcher = ["-m", "accelerate.commands.launch", "--config_file", launch_file(launches.root, stage)]
    run = [*arguments, *KINDS[kind], "--output_dir", str(launches.root / name / "run")]
    seen = launches.run(name, [*launcher, "--module", "rlprm.cli", *run])
    assert seen.status == 0, seen.output[-3000:]
    return seen


def metrics(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [
        {
            name: value
            for name, value in json.loads(line).items()
            if not name.startswith("time/") and name not in UNKNOWN
        }
        for line in lines
    ]


def largest_difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    assert a.keys() == b.keys()
    return max((a[name] - b[name]).abs().max().item() for name in a)


@pytest.mark.parametrize(("stage", "kind"), CASES)
def test_deepspeed_rl_two_processes_equal_one(
    launches: Launches, arguments: list[str], stage: int, kind: str
) -> None:
    ours = one(launches, arguments, kind)
    theirs = two(launches, arguments, stage, kind).folder / "run"
    ran = json.loads((theirs / "summary.json").read_text())
    assert ran["processes"] == {"count": 2, "zero_stage": stage}
    expected = metrics(ours)
    assert len(expected) == 3
    assert expected[2]["ppo/kl_to_reference"] != 0
    for row, other in zip(metrics(theirs), expected, strict=True):
        assert_close(row, other, 1e-5, "row")
    trained = load_file(ours / "model.safetensors")
    assert largest_difference(load_file(theirs / "model.safetensors"), trained) < 1e-5
    start = load_file(launches.models / "policy" / "model.safetensors")
    assert largest_difference(trained, start) > 1e-3


@pytest.mark.parametrize("stage", [0, 2, 3])
@pytest.mark.trap("Adam after warm-up")
def test_trap_deepspeed_adam_does_not_remember_the_critics_warm_up(
    launches: Launches, arguments: list[str], stage: int
) -> None:
    """Had it counted those steps, the policy would move half as far in the next iteration."""
    expected = metrics(one(launches, arguments, "warmed"))
    found = metrics(two(launches, arguments, stage, "warmed").folder / "run")
    for row, other in zip(found, expected, strict=True):
        if stage == 0:  # DeepSpeed does not say the norm there
            del row["ppo/grad_norm"], other["ppo/grad_norm"]
        # Where a gradient is nearly 0, Adam's first step is mostly rounding.
        assert_close(row, other, 1e-3, "row")


@pytest.mark.trap("trainer within a run")
def test_trap_deepspeed_refreshes_the_prm_within_the_run(
    launches: Launches, walker_models: tuple[Path, Path]
) -> None:
    """The PRM's trainer has a DeepSpeed of its own, and RL goes on with the one that it had."""
    walker_policy, walker_prm = walker_models
    settings = [
        "train-rl", *SETTINGS, "--model", str(walker_policy), "--prm", str(walker_prm), "--round_limit", "6",
        "--max_new_tokens", "8", "--refresh_every", "2", "--refresh_kwargs.learning_rate", "0.001",
        "--refresh_kwargs.disable_tqdm", "true", "--iterations", "3",
    ]  # fmt: skip
    found = []
    for name, launcher in (
        ("rl-refreshed-one", ["-m", "rlprm.cli"]),
        (
            "rl-refreshed-zero3",
            [
                "-m",
                "accelerate.commands.launch",
                "--config_file",
                "ds_configs/cpu_zero3.yaml",
                "--module",
                "rlprm.cli",
            ],
        ),
    ):
        folder = launches.root / name / "run"
        seen = launches.run(name, [*launcher, *settings, "--output_dir", str(folder)])
        assert seen.status == 0, seen.output[-3000:]
        found.append(seen.folder / "run")
    for row, other in zip(*map(metrics, found), strict=True):
        assert_close(other, row, 1e-4, "row")
    prms = [load_file(folder / "refresh/prm-000002/model.safetensors") for folder in found]
    assert largest_difference(*prms) < 3e-5  # a step of Adam is 1e-3
    assert largest_difference(prms[0], load_file(walker_prm / "model.safetensors")) > 1e-3
    policies = [load_file(folder / "model.safetensors") for folder in found]
    assert largest_difference(*policies) < 1e-4


def test_deepspeed_rl_saves_a_policy_for_stock_transformers(launches: Launches, arguments: list[str]) -> None:
    folder = two(launches, arguments, 3, "adapters").folder / "run"
    policy = AutoModelForCausalLM.from_pretrained(folder)
    trained = one(launches, arguments, "adapters")
    expected = AutoModelForCausalLM.from_pretrained(trained)
    assert largest_difference(dict(policy.state_dict()), dict(expected.state_dict())) < 1e-5
    assert (folder / "adapter" / "adapter_model.safetensors").exists()
    assert json.loads((folder / "summary.json").read_text())["iterations"] == 3


@pytest.mark.parametrize("kind", ["plain", "adapters"])
def test_deepspeed_rl_goes_on_where_it_was_killed(
    launches: Launches, arguments: list[str], kind: str
) -> None:
    """Under ZeRO-3, killed some moment after the first checkpoint."""
    folder = launches.root / f"rl-killed-{kind}"
    launcher = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        "ds_configs/cpu_zero3.yaml",
    ]
    command = [*launcher, "--module", "rlprm.cli", *arguments, *KINDS[kind], "--output_dir", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        limit = time.monotonic() + TIMEOUT
        while not (folder / "checkpoints" / "iteration-000001").exists():
            assert process.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.05)
        launcher_process = psutil.Process(process.pid)  # its workers are in sessions of their own
        for victim in (launcher_process, *launcher_process.children(recursive=True)):
            victim.kill()
    assert not (folder / "stage.json").exists()
    again = launches.run(f"rl-again-{kind}", command[1:])
    assert again.status == 0, again.output[-3000:]
    assert "going on after iteration" in again.output
    # What is frozen (the reference; under adapters all else) is loaded again, not kept in checkpoints.
    for file in (folder / "checkpoints").rglob("*_model_states.pt"):
        frozen = torch.load(file, weights_only=False)["frozen_param_fragments"]
        assert not frozen, f"{file}: {sorted(frozen)}"
    whole = two(launches, arguments, 3, kind).folder / "run"
    assert largest_difference(
        load_file(folder / "model.safetensors"), load_file(whole / "model.safetensors")
    ) < 1e-6  # fmt: skip
    for row, other in zip(metrics(folder), metrics(whole), strict=True):
        assert_close(row, other, 1e-5, "row")
