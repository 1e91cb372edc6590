"""Holm's step-down correction (Holm, 1979): the chance of any false claim stays below the level."""

from __future__ import annotations

from collections.abc import Mapping

from rlprm.errors import DataError

__all__ = ["holm"]


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return the corrected p value of each of K comparisons, in the order given.

    With ``p_(1) ≤ ... ≤ p_(K)``, the corrected value of comparison k is
    ``max over j ≤ k of min(1, (K - j + 1) p_(j))``.

    Raises:
        DataError: for a value outside [0, 1].
    """
    for name, p in p_values.items():
        if not 0.0 <= p <= 1.0:
            raise DataError(f"the p value of {name} is {p}, expected 0 ... 1")
    corrected: dict[str, float] = {}
    highest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[name]))
        corrected[name] = highest
    return {name: corrected[name] for name in p_values}
