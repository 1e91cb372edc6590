"""Dynamic sampling: tasks whose episodes differ in their returns, and how many further tasks are drawn; pure.

An estimator that compares the rollouts of one task gives them the advantage 0 if all returns are equal. Such
tasks are left out and further ones are run in their place (DAPO, Yu et al. 2025, arXiv 2503.14476), for at
most ``MOST_ROUNDS`` rounds.
"""

from __future__ import annotations

from collections.abc import Sequence

from rlprm.types import Trajectory

__all__ = ["MOST_ROUNDS", "rows_with_signal", "tasks_with_signal"]

MOST_ROUNDS = 3
"""Rounds of further tasks in one iteration."""


def tasks_with_signal(trajectories: Sequence[Trajectory], *, outcome: str, gamma: float) -> set[str]:
    """Return the ids of the tasks whose episodes have different returns ``γ^{T-1} outcome``.

    Args:
        trajectories: that did not fail, each with at least one step.
        outcome: what the run learns from, ``success`` or ``score``.
        gamma: γ.
    """
    returns: dict[str, set[float]] = {}
    for t in trajectories:
        reached = t.outcome.value(outcome) * gamma ** (len(t.steps) - 1)
        returns.setdefault(t.task.id, set()).add(reached)
    return {task for task, found in returns.items() if len(found) > 1}


def rows_with_signal(trajectories: Sequence[Trajectory], *, outcome: str, gamma: float) -> list[int]:
    """Return the places of the episodes that are learned from: of tasks with a signal.

    If no task has one, all are learned from, as without dynamic sampling.
    """
    tasks = tasks_with_signal(trajectories, outcome=outcome, gamma=gamma)
    return [row for row, t in enumerate(trajectories) if t.task.id in tasks or not tasks]
