"""Which of an iteration's episodes are learned from, and what the journal says of it; pure."""

from __future__ import annotations

from collections.abc import Sequence

from rlprm.rl.batch import Batch, PRMValues
from rlprm.rl.config import RLConfig
from rlprm.rl.monitor.diagnostics import prm_metrics
from rlprm.rl.selection.best_of import best_rows
from rlprm.rl.selection.signal import rows_with_signal
from rlprm.types import StepScores, Trajectory

__all__ = ["learned_rows", "selection_metrics"]


def learned_rows(
    trajectories: Sequence[Trajectory], scores: Sequence[StepScores], config: RLConfig
) -> list[int]:
    """Return the places of the episodes that are learned from.

    Args:
        trajectories: that did not fail.
        scores: of the PRM; empty without one.
        config: of the run.
    """
    if config.best_of > 1:
        return best_rows(trajectories, scores, config.best_of)
    if config.dynamic_sampling:
        return rows_with_signal(trajectories, outcome=config.outcome, gamma=config.gamma)
    return list(range(len(trajectories)))


def selection_metrics(
    trajectories: Sequence[Trajectory], learned: Sequence[int], values: PRMValues | None, config: RLConfig
) -> dict[str, float]:
    """Return how much was learned from, and what is known of the PRM over all episodes.

    Args:
        trajectories: that did not fail.
        learned: places of those that were learned from.
        values: of the PRM, for all of them.
        config: of the run.
    """
    if not config.dynamic_sampling and config.best_of == 1:
        return {}
    found = {"rollout/learned": len(learned) / len(trajectories)}
    if config.dynamic_sampling:
        found["rollout/tasks"] = float(len({t.task.id for t in trajectories}))
    if values is not None:
        judged = prm_metrics(Batch.from_trajectories(trajectories, outcome=config.outcome), values)
        found |= {f"prm/{name}": value for name, value in judged.items()}
    return found
