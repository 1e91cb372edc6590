"""A scorer for several processes: each process scores a share, and all processes get all scores."""

from __future__ import annotations

from collections.abc import Sequence

from rlprm.runtime.processes import Processes, collective
from rlprm.scorers.base import Scorer
from rlprm.types import StepScores, Trajectory

__all__ = ["DistributedScorer"]


class DistributedScorer:
    """Shares the scoring of another scorer out over the processes of a launch.

    Every process must call ``score`` with the same trajectories.

    Args:
        scorer: the copy of this process.
        processes: of the launch.
    """

    def __init__(self, scorer: Scorer, processes: Processes) -> None:
        self.scorer, self.processes = scorer, processes
        self.name = scorer.name

    @collective
    def score(self, trajectories: Sequence[Trajectory]) -> list[StepScores]:
        """See :class:`rlprm.scorers.base.Scorer`.

        Trajectories are dealt out in the order of their lengths, so that no process has the long ones.
        """
        order = sorted(range(len(trajectories)), key=lambda index: len(trajectories[index].token_ids))
        own = self.processes.share([trajectories[index] for index in order])
        scores = self.processes.gather(self.scorer.score(own) if own else [])
        by_index = dict(zip(order, scores, strict=True))
        return [by_index[index] for index in range(len(trajectories))]
