"""A baseline without a model: random scores, for searches that choose by lot.

In a pool no lot is drawn: equal scores give the exact expectation over all lots, which is that of one sample.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlprm.scorers.base import Scorer
from rlprm.types import StepScores, Trajectory


def build(name: str, *, seed: int = 0) -> Random:
    """Build the scorer; see :class:`rlprm.scorers.base.ScorerModule`."""
    scorer = Random(seed)
    scorer.name = name
    return scorer


class Random:
    """Uniform scores in [0, 1) that depend only on seed, task, sample number and step.

    Args:
        seed: another seed is another lot.
    """

    def __init__(self, seed: int = 0) -> None:
        self.name = "random"
        self.seed = seed

    def score(self, trajectories: Sequence[Trajectory]) -> list[StepScores]:
        """Draw ``v_0 ... v_T``; a longer trajectory of the same sample starts with the same numbers.

        The candidates of a beam share a sample number, so that it ranks them all
        equal and goes by its own tie-break.
        """
        return [self._draw(trajectory) for trajectory in trajectories]

    def over_all_lots(self) -> Scorer:
        """See :class:`rlprm.scorers.base.Lot`."""
        return _Equal(self.name)

    def _draw(self, trajectory: Trajectory) -> StepScores:
        words = (self.seed, trajectory.sample, *trajectory.task.id.encode())
        initial, *values = np.random.default_rng(words).random(len(trajectory.steps) + 1).tolist()
        return StepScores(initial=initial, values=tuple(values))


class _Equal:
    """Gives every step the score 1/2."""

    def __init__(self, name: str) -> None:
        self.name = name

    def score(self, trajectories: Sequence[Trajectory]) -> list[StepScores]:
        return [StepScores(initial=0.5, values=(0.5,) * len(trajectory.steps)) for trajectory in trajectories]
