"""The protocol of a scorer: the only thing that search, evaluation and RL use of a reward model."""

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
            trajectory has steps. A trajectory that cannot be scored raises an
            error; its score never becomes 0 silently.
        """
        ...


class ScorerModule(Protocol):
    """The function a scorer's module defines, and an optional constant."""

    WEIGHTS: Sequence[str]
    """Optional: settings that name a folder or hub id of weights. The hash of the weights belongs to the
    identity of an evaluation."""

    def revision(self, **settings: Any) -> str:
        """Return what identifies weights that no setting names, such as those of a server. Optional.

        The result belongs to the identity of an evaluation.

        Args:
            **settings: as for ``build``.
        """
        ...

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
    """A scorer that saves work within a search. The method is optional for scorers."""

    def searching(self) -> AbstractContextManager[None]:
        """Begin a search, and end it on leaving.

        Each call of ``score`` in between is a round of the search. A trajectory of a round should be one step
        long, or continue a trajectory of the previous call by one step; others are read from their first
        token. The scores are the same as outside a search. Caches for the next round are freed at the end.
        """
        ...


@runtime_checkable
class Lot(Protocol):
    """A scorer whose scores are a lot. The method is optional for scorers."""

    def over_all_lots(self) -> Scorer:
        """Return a scorer that gives equal scores to what the lot orders.

        Equal scores of a pool are settled by the mean over all orders, so that no lot has to be drawn.
        """
        ...


def searching(scorer: Scorer) -> AbstractContextManager[None]:
    """Return a context that is one search for the scorer, if the scorer has that method."""
    return scorer.searching() if isinstance(scorer, SearchingScorer) else nullcontext()
