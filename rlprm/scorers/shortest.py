"""A baseline without a model: fewer actions are better.

Where an episode ends the moment it succeeds, success is what makes it short, and
choosing the shortest candidate comes close to the oracle without having learned
anything. A reward model is worth its price only where it beats this.
"""

from __future__ import annotations

from collections.abc import Sequence

from rlprm.types import StepScores, Trajectory


def build(name: str) -> Shortest:
    """Build the scorer; see :class:`rlprm.scorers.base.ScorerModule`."""
    scorer = Shortest()
    scorer.name = name
    return scorer


class Shortest:
    """Score of a step: minus the number of actions so far. Meant for aggregation ``last`` (or ``min``)."""

    def __init__(self) -> None:
        self.name = "shortest"

    def score(self, trajectories: Sequence[Trajectory]) -> list[StepScores]:
        """Return ``v_t = -t``, ``v_0 = 0``; all candidates of one length are equal, as are a beam's."""
        return [
            StepScores(initial=0.0, values=tuple(-float(t) for t in range(1, len(trajectory.steps) + 1)))
            for trajectory in trajectories
        ]
