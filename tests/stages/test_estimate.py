"""Monte-Carlo labels: near the exact values, one estimate a state, soft and hard from the same rollouts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from rlprm.data.conversation import Conversation
from rlprm.errors import ConfigError, DataError
from rlprm.policies.base import Completion
from rlprm.rollouts.monte_carlo import Estimate
from rlprm.rollouts.waves import rollout
from rlprm.stages.estimate import EstimateStore, Prefix, estimate_states, monte_carlo_labels, prefixes, select
from rlprm.stages.settings import EstimateConfig
from rlprm.types import EpisodeSetting, Split, Task, Trajectory
from tests.toys import corridor
from tests.toys.agents import SeededPolicy
from tests.toys.trajectories import of_steps

TASKS = [
    Task("tests.toys.corridor", name, Split.TRAIN, {"goal": 1, "length": 3, "budget": None})
    for name in "abcd"
]


@cache
def collected() -> tuple[Trajectory, ...]:
    return tuple(rollout([(t, s) for t in TASKS for s in range(4)], SeededPolicy(), EpisodeSetting()))


@cache
def exact_value(cell: int, turns_left: int) -> float:
    """Chance that a policy of uniform left, right, finish ends on cell 1 of 3 by declaring it."""
    if turns_left == 0:
        return 0.0
    left, right = max(cell - 1, 0), min(cell + 1, 2)
    return (exact_value(left, turns_left - 1) + exact_value(right, turns_left - 1) + float(cell == 1)) / 3


def config(**changes: Any) -> EstimateConfig:
    settings: dict[str, Any] = {
        "environment": "tests.toys.corridor", "model": "-", "trajectories": "-", "rollouts": 6,
        "wave_size": 64,
    }  # fmt: skip
    return EstimateConfig(**{**settings, **changes})


def estimates(
    folder: Path,
    trajectories: Sequence[Trajectory] | None = None,
    policy: SeededPolicy | None = None,
    **changes: Any,
) -> dict[int, Estimate]:
    return estimate_states(
        collected() if trajectories is None else trajectories,
        policy or SeededPolicy(),
        config(**changes),
        EstimateStore.create(folder, {}),
    )


def test_labels_are_within_their_error_of_the_exact_values(tmp_path: Path) -> None:
    n = 800
    chosen = collected()[:3]
    found = estimates(tmp_path, chosen, rollouts=n, wave_size=4 * n)
    for t in chosen:
        labels = monte_carlo_labels(t, found)
        assert len(labels.promise) == len(labels.weight) == len(t.steps) + 1
        assert labels.progress == ()
        assert labels.promise[-1] == float(t.outcome.success)
        cell = 0
        for turn, step in enumerate(t.steps):
            expected = exact_value(cell, corridor.ROUND_LIMIT - turn)
            error = 4 * math.sqrt(expected * (1 - expected) / n) + 1e-9
            assert abs(labels.promise[turn] - expected) <= error
            cell = min(max(cell + {"left": -1, "right": 1, "finish": 0}[step.action], 0), 2)


def test_a_state_that_trajectories_share_is_estimated_once(tmp_path: Path) -> None:
    policy = SeededPolicy()
    found = estimates(tmp_path, policy=policy)
    histories = {
        (t.task.id, tuple(s.action for s in t.steps[:k])) for t in collected() for k in range(len(t.steps))
    }
    assert len(found) == len(histories) < sum(len(t.steps) for t in collected())
    drawn = [seed for call in policy.seeds for seed in call]
    assert len(set(drawn)) == len(drawn)
    starts = {monte_carlo_labels(t, found).promise[0] for t in collected() if t.task.id == "a"}
    assert len(starts) == 1


def test_costs_are_those_of_the_rollouts(tmp_path: Path) -> None:
    # The only action is `finish`: every rollout is one step.
    policy = SeededPolicy(["finish"])
    found = list(estimates(tmp_path, policy=policy).values())
    assert {(e.rollouts, e.env_steps) for e in found} == {(6, 6)}
    assert {e.sampled_tokens for e in found} == {6 * len(policy.renderer.action_ids("finish"))}


@pytest.mark.parametrize("wave_size", [1, 7, 5000])
def test_neither_the_size_of_a_wave_nor_other_trajectories_change_an_estimate(
    tmp_path: Path, wave_size: int
) -> None:
    usual = estimates(tmp_path / "usual")
    assert estimates(tmp_path / "other", wave_size=wave_size) == usual
    fewer = estimates(tmp_path / "fewer", collected()[5:9])
    assert fewer == {key: usual[key] for key in fewer}


def test_the_seed_decides(tmp_path: Path) -> None:
    assert estimates(tmp_path / "a") != estimates(tmp_path / "b", seed=1)


class Killed(SeededPolicy):
    """Pulls the plug at a call."""

    def __init__(self, at_call: int) -> None:
        super().__init__()
        self.at_call = at_call

    def act(self, conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[Completion]:
        if len(self.calls) == self.at_call:
            raise KeyboardInterrupt
        return super().act(conversations, seeds)


@pytest.mark.parametrize("at_call", [0, 9])
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path, at_call: int) -> None:
    estimates(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        estimates(tmp_path / "killed", policy=Killed(at_call))
    rest = SeededPolicy()
    estimates(tmp_path / "killed", policy=rest)
    whole, killed = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("whole", "killed")
    )
    assert killed == whole
    estimates(tmp_path / "killed", policy=Killed(0))  # nothing is left to do


def test_soft_hard_and_graded_labels_by_hand() -> None:
    made = of_steps(False, 3, score=0.25)
    rows = {0: (0.5, 0.6), 1: (0.125, 0.3), 2: (0.0, 0.2)}
    found = {Prefix(made, turn).key: Estimate(s, g, 8, 1, 1) for turn, (s, g) in rows.items()}
    assert monte_carlo_labels(made, found).promise == (0.5, 0.125, 0.0, 0.0)
    assert monte_carlo_labels(made, found, hard=True).promise == (1.0, 1.0, 0.0, 0.0)
    assert monte_carlo_labels(made, found, outcome="score").promise == (0.6, 0.3, 0.2, 0.25)
    won = replace(made, outcome=replace(made.outcome, success=True))
    assert monte_carlo_labels(won, found, hard=True).promise[-1] == 1.0


def test_states_are_told_apart_by_task_and_tokens() -> None:
    same = [of_steps(steps=2, task="a", sample=n) for n in range(3)]
    assert [p.turn for p in prefixes(same)] == [0, 1]
    assert len(prefixes([of_steps(steps=2, task=name) for name in "ab"])) == 4


def test_the_first_tasks_and_samples_are_labelled() -> None:
    shuffled = [of_steps(steps=1, task=task, sample=s) for task in "abc" for s in (2, 0, 1)]
    chosen = select(shuffled, num_tasks=2, samples_per_task=2)
    assert [(t.task.id, t.sample) for t in chosen] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert len(select(shuffled, None, None)) == 9
    failed = [replace(t, error="RuntimeError: down") for t in shuffled]
    with pytest.raises(DataError, match="none of the 9 trajectories can be learned from"):
        select(failed, None, None)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"trajectories": ""}, "trajectories: nothing given"),
        ({"temperature": 0.0}, "temperature: got 0"),
        ({"rollouts": 0}, "rollouts: got 0, allowed: 1 or more"),
        ({"outcome": "reward"}, "outcome: got 'reward', allowed: success, score"),
        ({"num_tasks": 0}, "num_tasks: got 0, allowed: 1 or more, or unset"),
        ({"samples_per_task": 0}, "samples_per_task: got 0"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        config(**change)
