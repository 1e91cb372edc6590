"""Expert iteration: of every k rollouts the one is learned from that the PRM values most at its end; pure.

The policy that acts is then the best of k, whose probabilities nobody knows. So only likelihood can learn
from it (advantage ``cloning``), and PPO's ratio cannot.
"""

from __future__ import annotations

from collections.abc import Sequence

from rlprm.types import StepScores, Trajectory

__all__ = ["best_rows"]


def best_rows(trajectories: Sequence[Trajectory], scores: Sequence[StepScores], k: int) -> list[int]:
    """Return the place of the best rollout among every k of a task, in order; of equal ones the first.

    Args:
        trajectories: that did not fail. The samples ``i k ... i k + k - 1`` of a task compete.
        scores: of each.
        k: rollouts of which one is kept; fewer compete if some failed.
    """
    best: dict[tuple[str, int], int] = {}
    for row, t in enumerate(trajectories):
        key = t.task.id, t.sample // k
        if key not in best or scores[row].values[-1] > scores[best[key]].values[-1]:
            best[key] = row
    return sorted(best.values())
