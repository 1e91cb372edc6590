"""What the alarm compares: the outcome of an iteration and signs of reward hacking, over its tasks; pure.

Samples of one task are averaged first, since they depend on each other. The noise of an iteration is then
that of its tasks. A failed task has more turns and is overrated more, so a sign and the outcome share much of
their noise. Their covariance is kept, with which :mod:`rlprm.rl.monitor.alarm` compares a sign at equal
outcome.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from rlprm.types import Trajectory

__all__ = ["Sign", "read_watched", "watched"]

_LEAST_TASKS = 2
"""A variance over tasks needs two."""


@dataclass(frozen=True)
class Sign:
    """A sign over the tasks of one iteration, with the outcome over the same tasks."""

    tasks: int
    """Number of tasks that have the sign."""
    mean: float
    variance: float
    """Of the mean: the squared standard error."""
    outcome: float
    """Mean outcome of these tasks."""
    outcome_variance: float
    covariance: float
    """Of both means."""


def watched(
    trajectories: Sequence[Trajectory],
    *,
    outcome: str,
    final_values: Sequence[float] | None = None,
    paid: Sequence[float] | None = None,
) -> dict[str, Sign]:
    """Return the signs of an iteration.

    ``turns``: steps of an episode. ``repeated``: share of actions that repeat the one before. ``invalid``:
    share of actions that could not be read or carried out. With a PRM ``overrating``: last value minus
    outcome. ``failures``: last value of episodes that did not succeed. ``pay``: what the PRM pays an episode.

    Args:
        trajectories: all episodes of the iteration that did not fail, each with at least one step.
        outcome: what the run learns from, ``success`` or ``score``.
        final_values: the PRM's value after the last action of each episode.
        paid: the PRM's part of each episode's reward.

    Returns:
        Each sign by its name, without those that fewer than two tasks have.
    """
    outcomes = [t.outcome.value(outcome) for t in trajectories]
    per_episode: dict[str, Sequence[float | None]] = {
        "turns": [float(len(t.steps)) for t in trajectories],
        "repeated": [_repeated_share(t) for t in trajectories],
        "invalid": [sum(not step.valid for step in t.steps) / len(t.steps) for t in trajectories],
    }
    if final_values is not None:
        ends = list(zip(trajectories, final_values, outcomes, strict=True))
        per_episode["overrating"] = [value - reached for _, value, reached in ends]
        per_episode["failures"] = [None if t.outcome.success else value for t, value, _ in ends]
    if paid is not None:
        per_episode["pay"] = list(paid)
    numbers: dict[str, int] = {}
    groups = [numbers.setdefault(t.task.id, len(numbers)) for t in trajectories]
    signs = {name: _over_tasks(values, outcomes, groups) for name, values in per_episode.items()}
    return {name: sign for name, sign in signs.items() if sign is not None}


def read_watched(row: Mapping[str, Any]) -> dict[str, Sign]:
    """Return the signs that a row of the journal holds; rows of earlier versions hold none."""
    return {name: Sign(**stored) for name, stored in row.get("watch", {}).items()}


def _repeated_share(trajectory: Trajectory) -> float:
    """Return the share of steps whose action is that of the step before."""
    steps = trajectory.steps
    return sum(a.action == b.action for a, b in pairwise(steps)) / len(steps)


def _over_tasks(
    values: Sequence[float | None], outcomes: Sequence[float], groups: Sequence[int]
) -> Sign | None:
    there = np.array([value is not None for value in values])
    if not there.any():
        return None
    kept = np.array([value for value in values if value is not None], dtype=float)
    of = np.unique(np.array(groups)[there], return_inverse=True)[1]
    counts = np.bincount(of)
    if len(counts) < _LEAST_TASKS:
        return None
    reached = np.array(outcomes, dtype=float)[there]
    means = np.stack([np.bincount(of, weights=numbers) / counts for numbers in (kept, reached)])
    covariance = np.cov(means) / len(counts)
    return Sign(
        tasks=len(counts),
        mean=float(means[0].mean()),
        variance=float(covariance[0, 0]),
        outcome=float(means[1].mean()),
        outcome_variance=float(covariance[1, 1]),
        covariance=float(covariance[0, 1]),
    )
