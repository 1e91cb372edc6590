"""Percentile bootstrap that draws seeds and goals crossed, for environments with a finite list of goals.

Every seed is tested on the same goals. A goal's difficulty is then the same luck in all seeds. One
resample draws S seeds and, independently, G goals, both with replacement, and takes the mean over all pairs
(Owen, 2007, "The pigeonhole bootstrap"). The noise of a pair of seed and goal counts up to three times, so
that the interval is rather too wide. With few seeds the interval is too narrow if seeds differ much, because
quantiles of a bootstrap do not allow for the few degrees of freedom.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from rlprm.errors import ConfigError, DataError

__all__ = ["CrossedInterval", "crossed_interval"]


class CrossedInterval(NamedTuple):
    """A mean over all tasks, with what the bootstrap over seeds and goals says about it."""

    mean: float
    low: float
    high: float
    p: float
    """Two-sided p value: twice the smaller share of resamples on one side of 0, the observed one counted."""


def crossed_interval(
    sums_SG: ArrayLike,
    counts_SG: ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> CrossedInterval:
    """Return the mean difference per task and its interval over seeds and goals.

    With one seed the interval is over goals alone.

    Args:
        sums_SG: sum of the paired differences of a seed's tasks of a goal.
        counts_SG: number of these tasks; 0 if the seed has none.
        level: of the interval.
        resamples: number of draws.
        seed: of the draws.

    Raises:
        ConfigError: for a level outside (0, 1) or no resamples.
        DataError: for a seed or a goal without tasks, or a number that is not finite.
    """
    if not 0.0 < level < 1.0 or resamples < 1:
        raise ConfigError(
            f"level: got {level}, allowed: between 0 and 1; resamples: got {resamples}, allowed: 1 or more"
        )
    sums, counts = np.asarray(sums_SG, dtype=np.float64), np.asarray(counts_SG, dtype=np.float64)
    if sums.ndim != 2 or sums.shape != counts.shape:
        raise ValueError(f"sums_SG has shape {sums.shape} and counts_SG {counts.shape}, expected one (S, G)")
    if not np.isfinite(sums).all():
        raise DataError("sums_SG has a number that is not finite")
    if sums.size == 0 or not (counts.sum(axis=1) > 0).all() or not (counts.sum(axis=0) > 0).all():
        raise DataError("every seed and every goal needs at least one task")
    seeds, goals = sums.shape
    generator = np.random.default_rng(seed)
    # How often each seed and goal was drawn; a resample's sum is then a bilinear form.
    drawn_RS = generator.multinomial(seeds, np.full(seeds, 1.0 / seeds), size=resamples)
    drawn_RG = generator.multinomial(goals, np.full(goals, 1.0 / goals), size=resamples)
    totals_R = ((drawn_RS @ sums) * drawn_RG).sum(axis=1)
    sizes_R = ((drawn_RS @ counts) * drawn_RG).sum(axis=1)
    known = sizes_R > 0  # a resample may hold only pairs without tasks
    means = totals_R[known] / sizes_R[known]
    low, high = np.quantile(means, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    smaller = min(int((means <= 0.0).sum()), int((means >= 0.0).sum()))
    p = min(1.0, 2.0 * (smaller + 1) / (len(means) + 1))
    return CrossedInterval(float(sums.sum() / counts.sum()), float(low), float(high), p)
