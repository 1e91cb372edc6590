"""From the step scores ``v_1 ... v_T`` of a trajectory to the one score it is ranked by.

The paper leaves the rule open; choose on dev tasks. What each one favours:

* ``last``: nothing but the final judgement; a sum of progress ranks the same.
* ``min``: no bad step; with more steps there are more chances for one.
* ``mean``: early certainty.
* ``product``: short trajectories wherever values lie below 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from rlprm.errors import ConfigError, DataError

__all__ = ["AGGREGATIONS", "aggregate"]


def _checked(scores: Iterable[float]) -> list[float]:
    numbers = [float(score) for score in scores]
    if not numbers:
        raise DataError("no step scores to aggregate; a trajectory without steps has no score")
    for step, number in enumerate(numbers, start=1):
        if not math.isfinite(number):
            raise DataError(f"the score of step {step} of {len(numbers)} is {number}")
    return numbers


def _last(scores: Iterable[float]) -> float:
    return _checked(scores)[-1]


def _min(scores: Iterable[float]) -> float:
    return min(_checked(scores))


def _mean(scores: Iterable[float]) -> float:
    numbers = _checked(scores)
    return math.fsum(numbers) / len(numbers)


def _product(scores: Iterable[float]) -> float:
    return math.prod(max(number, 0.0) for number in _checked(scores))


AGGREGATIONS: Mapping[str, Callable[[Iterable[float]], float]] = MappingProxyType(
    {"last": _last, "min": _min, "mean": _mean, "product": _product}
)
"""``last``: v_T; ``min``: min_t v_t; ``mean``: Σ_t v_t / T; ``product``: Π_t max(v_t, 0).

Values may leave [0, 1]; the product clips them at 0 from below, lest two negative
ones make a positive. Each refuses an empty sequence, NaN and infinities with a
``DataError``: a score that could not be computed is never a low score.
"""


def aggregate(scores: Iterable[float], aggregation: str) -> float:
    """Return the trajectory's score under a named rule.

    Raises:
        ConfigError: for an unknown rule; lists those there are.
        DataError: for an empty sequence or a score that is not finite.
    """
    if aggregation not in AGGREGATIONS:
        raise ConfigError(f"unknown aggregation {aggregation!r}; known: {', '.join(AGGREGATIONS)}")
    return AGGREGATIONS[aggregation](scores)
