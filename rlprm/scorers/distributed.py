"""A scorer of several processes: each asks its own copy about its share, and has all the answers."""

from __future__ import annotations

from collections.abc import Sequence

from rlprm.runtime.processes import Processes, collective
from rlprm.scorers.base import Scorer
from rlprm.types import StepScores, Trajectory

__all__ = ["DistributedScorer"]


class DistributedScorer:
    """Scores as another scorer does, in every process of a launch at once.

    Args:
        scorer: this process's.
        processes: of the launch; all of them have to ask about the same trajectories.
    """

    def __init__(self, scorer: Scorer, processes: Processes) -> None:
        self.scorer, self.processes = scorer, processes
        self.name = scorer.name

    @collective
    def score(self, trajectories: Sequence[Trajectory]) -> list[StepScores]:
        """See :class:`rlprm.scorers.base.Scorer`."""
        own = self.processes.share(trajectories)
        return self.processes.gather(self.scorer.score(own) if own else [])
