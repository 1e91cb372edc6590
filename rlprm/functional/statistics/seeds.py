"""Student's t over seeds: each seed contributes one number, the mean difference over its own tasks.

A seed has its own policy, reward models and test tasks. The per-seed means are then independent, and
their spread contains all of this luck. If seeds share their tasks, the luck of these tasks is the same
in every mean and the interval misses it: use ``rlprm.functional.statistics.crossed``.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from rlprm.errors import ConfigError, DataError

__all__ = ["SeedInterval", "seed_interval"]


class SeedInterval(NamedTuple):
    """A mean over seeds, with what Student's t says about it."""

    mean: float
    low: float
    high: float
    deviation: float
    """Standard deviation over seeds, with divisor S - 1."""
    p: float
    """Two-sided p value of the hypothesis that the mean over all possible seeds is 0.

    Of equal numbers other than 0, which have no spread, it is that of the sign test, ``2 ** (1 - S)``.
    """


def seed_interval(differences_S: ArrayLike, *, level: float = 0.95) -> SeedInterval | None:
    """Return the mean over S seeds with its t interval, ``mean ± t(S - 1) · deviation / √S``.

    Args:
        differences_S: one mean difference per seed.
        level: of the interval.

    Returns:
        None for a single seed, which has no spread.

    Raises:
        ConfigError: for a level outside (0, 1).
        DataError: for no seeds, or a number that is not finite.
    """
    if not 0.0 < level < 1.0:
        raise ConfigError(f"level: got {level}, allowed: between 0 and 1")
    values = _finite(differences_S)
    size = len(values)
    if size == 1:
        return None
    mean, deviation = float(values.mean()), float(values.std(ddof=1))
    error = deviation / math.sqrt(size)
    if np.ptp(values) == 0.0:
        return SeedInterval(mean, mean, mean, 0.0, 1.0 if mean == 0.0 else 2.0 ** (1 - size))
    width = float(stats.t.ppf(0.5 + level / 2.0, size - 1)) * error
    p = 2.0 * float(stats.t.sf(abs(mean) / error, size - 1))
    return SeedInterval(mean, mean - width, mean + width, deviation, p)


def _finite(numbers: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(numbers, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"differences_S has shape {values.shape}, expected one number per seed")
    if values.size == 0:
        raise DataError("differences_S is empty: there is no mean over no seeds")
    if not np.isfinite(values).all():
        position = int((~np.isfinite(values)).argmax())
        raise DataError(f"differences_S[{position}] is {values[position]}")
    return values
