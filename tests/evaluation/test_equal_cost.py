"""A search beside best-of-N at the same cost: interpolation, the ends of the pool, the difference."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from rlprm.errors import DataError, MismatchError
from rlprm.evaluation.equal_cost import at_equal_cost
from rlprm.evaluation.records import Costs, Measurement, measure
from rlprm.types import End


def row(successes: Mapping[str, float], steps: float, n: int = 1, strategy: str = "best_of_n") -> Measurement:
    return measure(
        successes, list(successes.values()), strategy=strategy, end=End.DECLARED, scorer="transcript", n=n,
        costs=Costs(10 * steps, steps, 0, steps),
    )  # fmt: skip


CURVE = [
    row({"a": 0.2, "b": 0.4}, 5, n=1),
    row({"a": 0.4, "b": 0.6}, 10, n=2),
    row({"a": 0.5, "b": 0.9}, 15, n=3),
]


def test_between_two_sizes_the_curve_is_interpolated_task_by_task() -> None:
    found = at_equal_cost(row({"a": 1.0, "b": 0.0}, 12, strategy="beam"), CURVE, "env_steps")
    # 12 steps lie 2/5 of the way from two to three candidates.
    assert found.n == pytest.approx(2.4)
    assert found.success_rate == pytest.approx((0.44 + 0.72) / 2)
    assert found.difference == pytest.approx(0.5 - 0.58)
    assert found.ci_low == pytest.approx(-0.72)
    assert found.ci_high == pytest.approx(0.56)
    assert (found.beyond_pool, found.below_one, found.spent) == (False, False, 12)
    assert found.reference == "best of N, transcript"


def test_the_cost_that_is_equal_is_the_one_asked_for() -> None:
    search = measure(
        {"a": 1.0, "b": 0.0}, [1.0, 0.0], strategy="beam", end=End.DECLARED, scorer="prm", n=4, m=4,
        costs=Costs(60, 5, 40, 15),
    )  # fmt: skip
    assert at_equal_cost(search, CURVE, "env_steps").n == 3
    by_tokens = at_equal_cost(search, CURVE, "total_tokens")  # 100 tokens, policy and scorer together
    assert (by_tokens.n, by_tokens.spent, by_tokens.cost) == (2, 100, "total_tokens")
    assert by_tokens.success_rate == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("steps", "n", "rate", "beyond", "below"),
    [
        (15, 3, 0.7, False, False),
        (16, 3, 0.7, True, False),
        (5, 1, 0.3, False, False),
        (4, 1, 0.3, False, True),
    ],
)
def test_beyond_the_ends_of_the_pool_the_nearest_end_counts_and_is_said(
    steps: float, n: float, rate: float, beyond: bool, below: bool
) -> None:
    found = at_equal_cost(row({"a": 1.0, "b": 1.0}, steps, strategy="beam"), CURVE, "env_steps")
    assert (found.n, found.beyond_pool, found.below_one) == (n, beyond, below)
    assert found.success_rate == pytest.approx(rate)


def test_curves_with_gaps_and_other_tasks_are_refused() -> None:
    search = row({"a": 1.0, "b": 1.0}, 7, strategy="beam")
    for curve in ([], CURVE[1:], [CURVE[0], CURVE[2]]):
        with pytest.raises(DataError, match="k = 1, 2"):
            at_equal_cost(search, curve, "env_steps")
    with pytest.raises(MismatchError, match="same tasks"):
        at_equal_cost(row({"a": 1.0}, 7, strategy="beam"), CURVE, "env_steps")
