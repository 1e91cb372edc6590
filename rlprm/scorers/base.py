"""What search, evaluation and RL know of a reward model: something that scores steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rlprm.types import StepScores, Trajectory


class Scorer(Protocol):
    """Scores the steps of trajectories, finished or not."""

    name: str
    """Shown in tables."""

    def score(self, trajectories: Sequence[Trajectory]) -> list[StepScores]:
        """Score every step; higher is better.

        Returns:
            One result per trajectory, in order, with as many values as the
            trajectory has steps. A score that cannot be given raises: it never
            silently becomes 0.
        """
        ...
