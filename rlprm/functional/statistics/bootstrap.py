"""Percentile bootstrap over tasks.

Tasks, not trajectories, are what varies independently: pass one number per task.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlprm.errors import ConfigError, DataError

__all__ = ["Interval", "mean_interval", "paired_interval", "ratio_interval"]

_MAX_INDICES_AT_ONCE = 2_000_000


class Interval(NamedTuple):
    """A mean (or a ratio of means) and the interval it may plausibly lie in."""

    mean: float
    low: float
    high: float


def mean_interval(
    values_K: ArrayLike, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Return the mean over tasks and its percentile-bootstrap interval.

    ``resamples`` times, draw K tasks with replacement and take their mean; the
    interval runs between the ``(1 - level) / 2`` and ``(1 + level) / 2`` quantiles
    of these means. The same seed gives the same interval. With one task, or all
    values equal, the interval has width 0: it says nothing about other tasks.
    """
    values = _checked("values_K", values_K)
    _check_settings(level, resamples)
    return _interval(float(values.mean()), _resampled_means(values, resamples, seed), level)


def paired_interval(
    a_K: ArrayLike, b_K: ArrayLike, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Return the mean of ``a - b`` over tasks and its interval; entry i of both is the same task.

    Tasks are drawn together with both their values, so that what makes a task
    easy for both cancels.
    """
    a, b = _checked("a_K", a_K), _checked("b_K", b_K)
    if a.shape != b.shape:
        raise ValueError(f"a_K has shape {a.shape} and b_K {b.shape}; they must be of the same tasks")
    return mean_interval(a - b, level=level, resamples=resamples, seed=seed)


def ratio_interval(
    a_K: ArrayLike, b_K: ArrayLike, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval | None:
    """Return the ratio of the means of ``a`` and ``b`` and its interval; entry i of both is the same task.

    None where ``b`` is so small that the mean of a resample of it is not above 0: the
    ratio then has no bounds.
    """
    a, b = _checked("a_K", a_K), _checked("b_K", b_K)
    if a.shape != b.shape:
        raise ValueError(f"a_K has shape {a.shape} and b_K {b.shape}; they must be of the same tasks")
    _check_settings(level, resamples)
    # The same seed and size draw the same tasks for both.
    above, below = _resampled_means(a, resamples, seed), _resampled_means(b, resamples, seed)
    if not (below > 0).all():
        return None
    return _interval(float(a.mean() / b.mean()), above / below, level)


def _check_settings(level: float, resamples: int) -> None:
    if not 0.0 < level < 1.0:
        raise ConfigError(f"level must lie between 0 and 1, got {level}")
    if resamples < 1:
        raise ConfigError(f"resamples must be at least 1, got {resamples}")


def _interval(mean: float, resampled: NDArray[np.float64], level: float) -> Interval:
    low, high = np.quantile(resampled, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return Interval(mean, float(low), float(high))


def _checked(name: str, numbers: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(numbers, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"{name} has shape {values.shape}, expected one number per task")
    if values.size == 0:
        raise DataError(f"{name} is empty: there is no mean over no tasks")
    if not np.isfinite(values).all():
        position = int((~np.isfinite(values)).argmax())
        raise DataError(f"{name}[{position}] is {values[position]}")
    return values


def _resampled_means(values: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    if np.all(values == values[0]):
        return np.full(resamples, values[0])
    generator = np.random.default_rng(seed)
    rows = max(1, _MAX_INDICES_AT_ONCE // values.size)
    means = np.empty(resamples)
    for start in range(0, resamples, rows):
        stop = min(start + rows, resamples)
        drawn = generator.integers(values.size, size=(stop - start, values.size))
        means[start:stop] = values[drawn].mean(axis=1)
    return means
