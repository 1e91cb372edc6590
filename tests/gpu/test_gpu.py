"""What the tests show on a CPU holds on a GPU: for a machine that has one.

    RLPRM_TEST_GPU=1 python -m pytest tests/gpu

Elsewhere, and without the variable, they are skipped; all other tests want the CPU's exact numbers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from rlprm.data.rendering import ChatRenderer
from rlprm.data.store import TrajectoryStore
from rlprm.models.heads.reading import read_logits, stack_positions
from rlprm.models.heads.value_positions import ValuePosition
from rlprm.models.loading import load_causal_lm, load_scalar_model
from rlprm.policies.hf import HFPolicy
from rlprm.rollouts.waves import rollout
from rlprm.scorers.checkpoint import CheckpointScorer
from rlprm.types import EpisodeSetting, Split, Trajectory
from tests.rl import walker
from tests.toys import corridor

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU, and RLPRM_TEST_GPU=1 to see it"
)
COMPARED = (
    "rollout/success", "rollout/turns", "reward/prm", "ppo/policy_loss", "ppo/value_loss", "ppo/entropy",
)  # fmt: skip
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy and a PRM of its episodes, made on the CPU."""
    root = tmp_path_factory.mktemp("models")
    walker.make_policy(root / "policy")
    walker.make_prm(root / "prm", root / "policy")
    return root


def episodes(model: PreTrainedModel, renderer: ChatRenderer, **settings: Any) -> list[Trajectory]:
    policy = HFPolicy(model, renderer, **{"revision": "babbler", "max_new_tokens": 6, **settings})
    jobs = [
        (replace(task, spec={**task.spec, "budget": 1 + i}), sample)
        for i, task in enumerate(corridor.tasks(Split.TRAIN, 0, 6))
        for sample in range(8)
    ]
    return rollout(jobs, policy, EpisodeSetting(round_limit=5, prompt="short"))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_keeping_the_cache_changes_no_token(
    babbler: PreTrainedModel, renderer: ChatRenderer, temperature: float
) -> None:
    model = deepcopy(babbler).to(GPU)
    fast = episodes(model, renderer, temperature=temperature)
    slow = episodes(model, renderer, temperature=temperature, reuse_cache=False)
    assert [t.token_ids for t in fast] == [t.token_ids for t in slow]
    for a, b in zip(fast, slow, strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)


def test_values_are_those_of_the_cpu(models: Path) -> None:
    ids_BL = torch.randint(5, 300, (8, 90), generator=torch.Generator().manual_seed(0))
    positions_BP5 = stack_positions([[ValuePosition.at(place) for place in range(10, 90, 10)]] * 8)
    there, here = (
        read_logits(load_scalar_model(str(models / "prm"), dtype="float32", device=on).eval(),
                    ids_BL.to(on), positions_BP5.to(on)).detach().cpu()
        for on in (GPU, CPU)
    )  # fmt: skip
    torch.testing.assert_close(there, here, atol=1e-4, rtol=0)
    assert here.std() > 0.01


def stage(output: Path, name: str, *arguments: str, gpu: bool = True) -> Path:
    """Run a stage in a process of its own; returns its folder."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "0" if gpu else ""}
    command = [sys.executable, "-m", "rlprm.cli", name, "--output_dir", str(output), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return output


def arguments_of(settings: Mapping[str, Any]) -> list[str]:
    """Write settings as on the command line."""
    return [word for key, value in settings.items() for word in (f"--{key}", str(value))]


def rl(models: Path, output: Path, *, gpu: bool = True, **changes: Any) -> list[dict[str, Any]]:
    """Run agent RL on the corridor; returns the rows of its journal."""
    settings = {**walker.settings(models / "policy", models / "prm"), **changes}
    length = settings.pop("env_kwargs")["length"]
    stage(output, "train-rl", *arguments_of({**settings, "env_kwargs.length": length}), gpu=gpu)
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def test_an_iteration_of_agent_rl_is_that_of_the_cpu(models: Path, tmp_path: Path) -> None:
    changes = {"iterations": 2, "critic_warmup_iterations": 0, "dtype": "float32"}
    there, here = (rl(models, tmp_path / str(gpu), gpu=gpu, **changes) for gpu in (True, False))
    for name in COMPARED:
        assert there[0][name] == pytest.approx(here[0][name], abs=2e-3), name
    assert there[0]["ppo/grad_norm"] == pytest.approx(here[0]["ppo/grad_norm"], rel=2e-2)


@pytest.mark.parametrize("more", [{}, {"lora_r": 8, "learning_rate": 3e-3, "kl_coef": 0.01}])
def test_agent_rl_in_bfloat16_raises_success(models: Path, tmp_path: Path, more: dict[str, Any]) -> None:
    rows = rl(models, tmp_path / "rl", iterations=8, tasks_per_iteration=16, bf16=True, **more)
    success = [row["rollout/success"] for row in rows]
    assert success[0] < 0.6
    assert success[-1] > 0.75
    assert all(row["ppo/sampler_mismatch"] < 0.05 for row in rows)
    load_causal_lm(str(tmp_path / "rl"))


def test_a_prm_trained_in_bfloat16_tells_successes_from_failures(models: Path, tmp_path: Path) -> None:
    def collect(name: str, first: int) -> str:
        settings = {
            "environment": walker.ENVIRONMENT, "env_kwargs.length": walker.LENGTH, "first_task": first,
            "round_limit": walker.SETTING.round_limit, "max_new_tokens": walker.MAX_NEW_TOKENS,
            "model": models / "policy", "num_tasks": 60, "samples_per_task": 4,
        }  # fmt: skip
        return str(stage(tmp_path / name, "collect", *arguments_of(settings)))

    trained = {
        "model": models / "policy", "trajectories": collect("rollouts", 0), "num_train_epochs": 4,
        "learning_rate": 2e-3, "bf16": "true", "report_to": "none",
    }  # fmt: skip
    folder = stage(tmp_path / "prm", "train-prm", *arguments_of(trained))
    others = TrajectoryStore.open(collect("others", 900)).read()
    won = torch.tensor([t.outcome.success for t in others])
    for dtype in ("float32", "bfloat16"):
        scores = CheckpointScorer.load("prm", str(folder), dtype=dtype).score(others)
        last = torch.tensor([s.values[-1] for s in scores])
        assert (last[won][:, None] > last[~won]).float().mean() > 0.8
