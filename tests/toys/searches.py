"""Comparing the results of searches."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rlprm.search import SearchResult


def assert_alike(a: SearchResult, b: SearchResult) -> None:
    """Compare two results exactly, but for the rounding of scores."""
    for x, y in zip(a.nodes, b.nodes, strict=True):
        assert x.scores == pytest.approx(y.scores, abs=1e-5)
        assert x.rank == (None if y.rank is None else pytest.approx(y.rank, abs=1e-5))
        assert replace(x, scores=y.scores, rank=y.rank) == y
    assert a.score == (None if b.score is None else pytest.approx(b.score, abs=1e-5))
    assert replace(a, score=b.score, nodes=b.nodes) == b
