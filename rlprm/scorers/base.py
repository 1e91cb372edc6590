"""What search, evaluation and RL know of a reward model: something that scores steps."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, runtime_checkable

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


class ScorerModule(Protocol):
    """The function a scorer's module defines."""

    def build(self, name: str, **settings: Any) -> Scorer:
        """Build the scorer.

        Args:
            name: shown in tables; the scorer's ``name``.
            **settings: the scorer's settings (keyword-only parameters by name).

        Raises:
            ConfigError: for a setting out of range.
        """
        ...


@runtime_checkable
class SearchingScorer(Protocol):
    """A scorer that saves work by knowing when a search begins and ends; no scorer has to."""

    def searching(self) -> AbstractContextManager[None]:
        """Begin a search, and end it on leaving.

        Each call of ``score`` in between is a round of it: all its trajectories are one step long, or all
        continue trajectories of the call before by one step. Scores are the same as without; whatever was
        kept for the next round is freed at the end.
        """
        ...


def searching(scorer: Scorer) -> AbstractContextManager[None]:
    """Tell a scorer that a search lasts as long as the context, where it wants to know."""
    return scorer.searching() if isinstance(scorer, SearchingScorer) else nullcontext()
