"""A search beside a reference at the same cost.

If the environment has the rule ``transcript``, the reference is sampling until the rule accepts an episode,
k at most. Otherwise the reference is best-of-k by the best free baseline. Both are exact for every k of a
pool, so that success is a curve over cost. Between two k the curve is interpolated, task by task.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rlprm.errors import DataError
from rlprm.evaluation.records import Measurement, difference

__all__ = ["COSTS", "EqualCost", "at_equal_cost", "curve_at_cost"]

COSTS = ("env_steps", "total_tokens")
"""Costs of a record that a search and its reference may share."""


@dataclass(frozen=True)
class EqualCost:
    """A search and a reference, at the same mean cost per task."""

    search: str
    reference: str
    """Name of the reference with N left open, such as ``until transcript, at most N``."""
    cost: str
    """Which cost is equal, one of :data:`COSTS`."""
    spent: float
    """Cost of the search, mean per task."""
    n: float
    """Candidates of the reference at this cost; the most, if it may stop before."""
    beyond_pool: bool
    """Whether the search cost more than the pool; the reference then is the pool's largest N."""
    below_one: bool
    """Whether the search cost less than one candidate; the reference then is one candidate."""
    success_rate: float
    """Of the reference."""
    difference: float
    """Success of the search minus that of the reference."""
    ci_low: float
    """Lower end of the paired 95 % interval of the difference, over tasks."""
    ci_high: float


def at_equal_cost(search: Measurement, curve: Sequence[Measurement], cost: str) -> EqualCost:
    """Compare a search with the point of a curve that costs as much.

    Args:
        search: any measurement.
        curve: of one pool for k = 1, 2, ..., n, of the same tasks.
        cost: one of :data:`COSTS`.

    Raises:
        DataError: for a curve that is empty or not in the order of k.
        MismatchError: for measurements of different tasks.
    """
    spent = float(getattr(search.record, cost))
    successes, n = curve_at_cost(curve, cost, spent)
    reference = Measurement(curve[min(math.ceil(n), len(curve)) - 1].record, successes)
    interval = difference(search, reference)
    return EqualCost(
        search=search.record.name,
        reference=curve[0].record.label,
        cost=cost,
        spent=spent,
        n=n,
        beyond_pool=spent > float(getattr(curve[-1].record, cost)),
        below_one=spent < float(getattr(curve[0].record, cost)),
        success_rate=sum(successes.values()) / len(successes),
        difference=interval.mean,
        ci_low=interval.low,
        ci_high=interval.high,
    )


def curve_at_cost(curve: Sequence[Measurement], cost: str, spent: float) -> tuple[dict[str, float], float]:
    """Return the success of every task at the point of a curve that costs as much, and its k.

    Args:
        curve: of one pool for k = 1, 2, ..., n.
        cost: one of :data:`COSTS`.
        spent: mean per task. Outside of the curve, its first or last point is taken.

    Raises:
        DataError: for a curve that is empty or not in the order of k.
    """
    if not curve or [m.record.n for m in curve] != list(range(1, len(curve) + 1)):
        raise DataError("a curve at equal cost needs measurements for k = 1, 2, ..., n")
    costs = [float(getattr(m.record, cost)) for m in curve]
    above = next((i for i, c in enumerate(costs) if c >= spent), len(costs) - 1)
    share = 1.0
    if above and costs[above] > costs[above - 1]:
        share = min((spent - costs[above - 1]) / (costs[above] - costs[above - 1]), 1.0)
    below = max(above - 1, 0)
    mixed = {
        task: (1 - share) * curve[below].successes[task] + share * curve[above].successes[task]
        for task in curve[above].successes
    }
    return mixed, below + 1 + share if above else 1.0
