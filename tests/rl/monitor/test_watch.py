"""Signs of an iteration: means over tasks, not over episodes, and their noise."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from rlprm.rl.monitor.watch import Sign, read_watched, watched
from tests.toys.trajectories import trajectory

EPISODES = [
    trajectory(".ac", success=True, task="a"),
    trajectory(".ac.ac.ac", success=False, task="a", sample=1, actions=("left", "left", "right")),
    trajectory(".ac.ac", success=True, task="b", actions=("left", "right")),
]
VALUES = [0.75, 0.5, 0.25]


def test_samples_of_a_task_are_averaged_before_tasks_are() -> None:
    signs = watched(EPISODES, outcome="success", final_values=VALUES, paid=[1.0, 2.0, 4.0])
    # Task a: 2 turns and success 1/2; task b: 2 turns and success 1. Differences of two tasks, d:
    # variance of the mean d^2 / 4, covariance d e / 4.
    assert signs["turns"] == Sign(2, 2.0, 0.0, 0.75, 0.0625, 0.0)
    # Repeated: (0 + 1/3) / 2 and 0, difference -1/6; success differs by 1/2.
    repeated = signs["repeated"]
    assert repeated.mean == pytest.approx(1 / 12)
    assert repeated.variance == pytest.approx(1 / 144)
    assert repeated.covariance == pytest.approx(-1 / 48)
    # Overrating: (-0.25 + 0.5) / 2 and -0.75.
    assert signs["overrating"].mean == pytest.approx((0.125 - 0.75) / 2)
    assert signs["pay"].mean == pytest.approx((1.5 + 4.0) / 2)
    assert "failures" not in signs  # only task a has a failed episode


def test_the_value_of_failures_is_that_of_tasks_with_a_failure() -> None:
    lost = trajectory(".ac", success=False, task="c")
    sign = watched([*EPISODES, lost], outcome="success", final_values=[*VALUES, 0.1])["failures"]
    # Task a: 0.5 at success 1/2 (its failed episode alone has the value, and the outcome of that episode).
    assert (sign.tasks, sign.mean) == (2, pytest.approx(0.3))


def test_without_a_prm_there_is_what_the_policy_does() -> None:
    assert set(watched(EPISODES, outcome="success")) == {"turns", "repeated", "invalid"}


def test_a_graded_outcome_is_the_one_that_is_learned() -> None:
    graded = [trajectory(".ac", score=0.5, task="a"), trajectory(".ac", score=0.25, task="b")]
    assert watched(graded, outcome="score")["turns"].outcome == 0.375
    assert watched(graded, outcome="success")["turns"].outcome == 0.0


def test_one_task_has_no_noise_to_compare_with() -> None:
    assert watched(EPISODES[:2], outcome="success", final_values=VALUES[:2]) == {}


def test_a_row_of_the_journal_gives_back_the_signs() -> None:
    signs = watched(EPISODES, outcome="success", final_values=VALUES)
    row = json.loads(json.dumps({"watch": {name: asdict(sign) for name, sign in signs.items()}}))
    assert read_watched(row) == signs
    assert read_watched({"rollout/success": 0.5}) == {}  # of an earlier version
