"""Episodes that are run while the trainer learns: one version old, and the same after a kill."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from rlprm.errors import ConfigError
from rlprm.functional.ppo import truncated_importance_weights
from rlprm.rl.config import RLConfig
from rlprm.rl.keeping.checkpoints import load_ahead
from rlprm.rl.samplers.ahead import Ahead
from rlprm.rl.samplers.base import Sampler
from rlprm.rl.trainer import RLTrainer
from rlprm.stages import train_rl as stage
from rlprm.types import EpisodeSetting, Task, Trajectory
from tests.rl.conftest import BASELINE, Run, column
from tests.rl.test_resume import assert_same, kill

STALE: dict[str, Any] = {**BASELINE, "importance_cap": 2.0, "learning_rate": 1e-2, "tasks_per_iteration": 6}


class AtTheBeginning:
    """Runs episodes when they are begun: with the weights that servers would have all the time."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler
        self.begun: list[int] = []

    def begin(
        self, jobs: Sequence[tuple[Task, int]], setting: EpisodeSetting
    ) -> Callable[[], list[Trajectory]]:
        self.begun.append(len(jobs))
        found = self.sampler.collect(jobs, setting)
        return lambda: found


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[list[Trajectory]]:
    """Runs act ahead; the episodes that each iteration learned from."""
    episodes: list[list[Trajectory]] = []
    take = RLTrainer._episodes

    def noted(self: RLTrainer, iteration: int) -> tuple[list[Trajectory], float]:
        found = take(self, iteration)
        episodes.append(found[0])
        return found

    monkeypatch.setattr(RLTrainer, "_episodes", noted)
    monkeypatch.setattr(
        stage,
        "_ahead",
        lambda config, sampler: Ahead(AtTheBeginning(sampler), load_ahead(Path(config.output_dir))),
    )
    return episodes


def test_each_iteration_but_the_first_learns_from_episodes_of_the_version_before(
    run: Run, tmp_path: Path, seen: list[list[Trajectory]]
) -> None:
    run(iterations=4, **STALE)
    assert [{t.policy for t in found} for found in seen] == [{"rl-0"}, {"rl-0"}, {"rl-1"}, {"rl-2"}]
    assert column(tmp_path / "rl", "rollout/staleness") == [0, 1, 1, 1]
    mismatch = column(tmp_path / "rl", "ppo/sampler_mismatch")
    assert mismatch[0] < 1e-5
    assert min(mismatch[2:]) > 1e-3  # beyond the bound of the mismatch, which is not meant for older weights


def test_the_tasks_are_those_of_a_run_that_waits(
    run: Run, tmp_path: Path, seen: list[list[Trajectory]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run("ahead", iterations=3, **STALE)
    ahead = [[(t.task.id, t.sample) for t in found] for found in seen]
    seen.clear()
    monkeypatch.setattr(stage, "_ahead", lambda *_: None)
    run("waits", iterations=3, **STALE)
    assert [[(t.task.id, t.sample) for t in found] for found in seen] == ahead
    assert column(tmp_path / "waits", "rollout/staleness") == [0, 0, 0]


@pytest.mark.parametrize("killed_at", [1, 2, 3])
def test_a_killed_run_goes_on_to_the_same_weights(
    run: Run, tmp_path: Path, seen: list[list[Trajectory]], monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    settings = {"iterations": 4, "save_every": 1, "round_limits": {0: 4, 2: 6}, **STALE}
    run("whole", **settings)
    whole = list(seen)
    seen.clear()
    with monkeypatch.context() as patched:
        kill(patched, RLTrainer, "_iterate", lambda iteration: iteration == killed_at)
        with pytest.raises(KeyboardInterrupt):
            run("killed", **settings)
    run("killed", **settings)
    assert_same(tmp_path / "whole", tmp_path / "killed")
    by_tokens = [[t.token_ids for t in found] for found in seen]
    assert by_tokens == [[t.token_ids for t in found] for found in whole]


def test_what_is_ahead_is_kept_by_the_checkpoint_and_nothing_by_the_last(
    run: Run, tmp_path: Path, seen: list[list[Trajectory]]
) -> None:
    run(iterations=2, save_every=1, **STALE)
    folders = sorted((tmp_path / "rl/checkpoints").iterdir())
    assert [(folder / "rollouts").exists() for folder in folders] == [True, False]
    assert load_ahead(tmp_path / "rl") is None
    assert load_ahead(tmp_path / "elsewhere") is None


def test_an_older_policy_is_corrected_for_by_its_probabilities() -> None:
    # A token of probability 1/4 under the older policy and 1/2 under that of the update counts twice, one of
    # probability 1/8 against 1/2 is cut at the cap, one of 1/2 against 1/4 counts half.
    now = torch.tensor([0.5, 0.5, 0.25]).log()
    before = torch.tensor([0.25, 0.125, 0.5]).log()
    weights = truncated_importance_weights(now, before, torch.ones(3), cap=2.0)
    assert weights.tolist() == pytest.approx([2.0, 2.0, 0.5])
    assert not math.isnan(float(weights.sum()))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "max_staleness: got 1, allowed: 0 without server"),
        ({"server": ["http://127.0.0.1:9"], "importance_cap": 0.0}, "needs importance weights"),
        ({"server": ["http://127.0.0.1:9"], "old_logprobs": "sampler"}, "needs importance weights"),
        ({"server": ["http://127.0.0.1:9"], "max_staleness": 2}, "max_staleness: got 2, allowed: "),
    ],
)
def test_settings_that_do_not_go_with_older_weights(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        RLConfig(model="m", environment="babyai", **{"max_staleness": 1, "advantage": "turn_gae", **settings})


def test_older_weights_are_corrected_for_by_default() -> None:
    config = RLConfig(
        model="m", environment="babyai", advantage="turn_gae", max_staleness=1, server=["http://127.0.0.1:9"]
    )
    assert config.settled(parameters=1000).importance_cap == 2.0
