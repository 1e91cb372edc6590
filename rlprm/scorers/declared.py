"""A baseline without a model: the agent's own word that it is done.

With ``end: declared`` the agent ends an episode itself if it believes the task to be solved. Best-of-N by
this scorer takes any of the candidates that were ended so, and any of all if there are none. Under another
``end`` the agent declares nothing, and an evaluation has no such row.
"""

from __future__ import annotations

from collections.abc import Sequence

from rlprm.types import StepScores, StopReason, Trajectory

__all__ = ["Declared", "build"]


def build(name: str) -> Declared:
    """Build the scorer; see :class:`rlprm.scorers.base.ScorerModule`."""
    scorer = Declared()
    scorer.name = name
    return scorer


class Declared:
    """Score of a step: 1 if the agent ended the episode with it, else 0. Meant for aggregation ``last``."""

    def __init__(self) -> None:
        self.name = "declared"

    def score(self, trajectories: Sequence[Trajectory]) -> list[StepScores]:
        """Return ``v_t = 0``, and ``v_T = 1`` if the episode stopped with ``StopReason.DECLARED``."""
        return [self._score(trajectory) for trajectory in trajectories]

    def _score(self, trajectory: Trajectory) -> StepScores:
        before = (0.0,) * (len(trajectory.steps) - 1)
        last = (float(trajectory.stop is StopReason.DECLARED),) if trajectory.steps else ()
        return StepScores(initial=0.0, values=(*before, *last))
