"""Comparing the results of searches, and a scorer to compare with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from rlprm.scorers import Scorer
from rlprm.search import SearchResult
from rlprm.types import StepScores, StopReason, Trajectory


def assert_alike(a: SearchResult, b: SearchResult) -> None:
    """Compare two results exactly, but for the rounding of scores."""
    for x, y in zip(a.nodes, b.nodes, strict=True):
        assert x.scores == pytest.approx(y.scores, abs=1e-5)
        assert x.rank == (None if y.rank is None else pytest.approx(y.rank, abs=1e-5))
        assert replace(x, scores=y.scores, rank=y.rank) == y
    assert a.score == (None if b.score is None else pytest.approx(b.score, abs=1e-5))
    assert replace(a, score=b.score, nodes=b.nodes) == b


class FromScratch:
    """Reads every candidate of every round from its first token."""

    name = "whole"

    def __init__(self, make: Callable[[], Scorer]) -> None:
        self.make = make

    def score(self, trajectories: Sequence[Trajectory]) -> list[StepScores]:
        scorer = self.make()
        return [scorer.score([replace(t, stop=StopReason.DECLARED)])[0] for t in trajectories]
