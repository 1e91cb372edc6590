"""How well step values separate successes from failures: AUC, calibration, rank correlation.

A trajectory's values are ``v_1 ... v_T``, without ``v_0``; its success is 0 or 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlprm.errors import ConfigError, DataError

__all__ = [
    "AUCPoint",
    "Calibration",
    "CalibrationBin",
    "auc",
    "auc_by_index",
    "auc_by_relative_position",
    "binomial_variance",
    "calibration",
    "clearly_different",
    "pairwise_accuracy",
    "spearman",
]


class AUCPoint(NamedTuple):
    """The AUC among the trajectories that have a value at one place."""

    position: float
    """Step index t, or the upper edge of a bin of relative positions t / T."""
    auc: float | None
    """None where all trajectories succeed or all fail."""
    successes: int
    failures: int


class CalibrationBin(NamedTuple):
    """Predictions that fall into ``[low, high)``, the last bin closed."""

    low: float
    high: float
    size: int
    mean_value: float | None
    """None for an empty bin."""
    success_rate: float | None
    """None for an empty bin."""


class Calibration(NamedTuple):
    """Reliability of predictions that claim to be probabilities of success."""

    bins: tuple[CalibrationBin, ...]
    expected_error: float
    """``Σ_bins (size / total) |success rate - mean value|``."""
    brier: float
    """Mean of ``(value - success)²``."""


def auc(scores: ArrayLike, success: ArrayLike) -> float | None:
    """Return the chance that a success scores above a failure, ties counting one half.

    ``AUC = (R - n₁ (n₁ + 1) / 2) / (n₁ n₀)`` with R the sum of the successes' ranks
    (Mann and Whitney). None where there is only one class.
    """
    numbers = _finite_vector("scores", scores)
    won = _flags(success, len(numbers))
    positives = int(won.sum())
    negatives = len(won) - positives
    if positives == 0 or negatives == 0:
        return None
    rank_sum = float(_average_ranks(numbers)[won].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def auc_by_index(values: Sequence[Sequence[float]], success: ArrayLike) -> list[AUCPoint]:
    """Return the AUC of ``v_t`` against success for each t, among trajectories with at least t steps.

    Long trajectories are not a fair sample: read the counts along with the AUC.
    """
    won = _flags(success, len(values))
    points = []
    for t in range(1, max((len(row) for row in values), default=0) + 1):
        rows = [row for row in range(len(values)) if len(values[row]) >= t]
        points.append(_auc_point(float(t), [values[row][t - 1] for row in rows], won[rows]))
    return points


def auc_by_relative_position(
    values: Sequence[Sequence[float]], success: ArrayLike, *, bins: int = 5
) -> list[AUCPoint]:
    """Return the AUC in ``bins`` equal bins of the relative position t / T in (0, 1].

    Step t falls into bin ``ceil(bins t / T)`` of ``1 ... bins``, hence the last step
    always into the last one. A trajectory enters a bin once, with the mean of its
    values there (long ones would otherwise count more), and not at all where it
    has none.
    """
    if bins < 1:
        raise ConfigError(f"bins must be at least 1, got {bins}")
    won = _flags(success, len(values))
    scores: list[list[float]] = [[] for _ in range(bins)]
    rows: list[list[int]] = [[] for _ in range(bins)]
    for row, chain in enumerate(values):
        numbers = _finite_vector(f"values[{row}]", chain)
        steps = np.arange(1, len(numbers) + 1)
        bin_of = -(-bins * steps // max(len(numbers), 1)) - 1
        for index in np.unique(bin_of).tolist():
            scores[index].append(float(numbers[bin_of == index].mean()))
            rows[index].append(row)
    return [_auc_point((index + 1) / bins, scores[index], won[rows[index]]) for index in range(bins)]


def calibration(values: ArrayLike, success: ArrayLike, *, bins: int = 10) -> Calibration:
    """Compare predicted with observed success in ``bins`` equal bins of [0, 1].

    Values are clipped to [0, 1] first: a head without a sigmoid may leave it.
    """
    if bins < 1:
        raise ConfigError(f"bins must be at least 1, got {bins}")
    numbers = np.clip(_finite_vector("values", values), 0.0, 1.0)
    if numbers.size == 0:
        raise DataError("no values to calibrate")
    won = _flags(success, len(numbers)).astype(np.float64)
    edges = np.linspace(0.0, 1.0, bins + 1)
    bin_of = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, bins - 1)
    counts = np.bincount(bin_of, minlength=bins)
    value_sums = np.bincount(bin_of, weights=numbers, minlength=bins)
    success_sums = np.bincount(bin_of, weights=won, minlength=bins)
    rows = tuple(
        CalibrationBin(
            low=float(edges[i]),
            high=float(edges[i + 1]),
            size=int(counts[i]),
            mean_value=float(value_sums[i] / counts[i]) if counts[i] else None,
            success_rate=float(success_sums[i] / counts[i]) if counts[i] else None,
        )
        for i in range(bins)
    )
    return Calibration(
        bins=rows,
        expected_error=float(np.abs(success_sums - value_sums).sum() / len(numbers)),
        brier=float(((numbers - won) ** 2).mean()),
    )


def spearman(a: ArrayLike, b: ArrayLike) -> float | None:
    """Return the correlation of the ranks of a and b (ties share their mean rank).

    None if one of them is constant, since it then ranks no pair.
    """
    first, second = _finite_vector("a", a), _finite_vector("b", b)
    if first.shape != second.shape:
        raise ValueError(f"a has shape {first.shape} and b {second.shape}, expected the same")
    if first.size == 0:
        raise DataError("no values to correlate")
    x = _average_ranks(first) - (first.size + 1) / 2
    y = _average_ranks(second) - (second.size + 1) / 2
    norm = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / norm if norm > 0.0 else None


def binomial_variance(means: ArrayLike, counts: ArrayLike) -> NDArray[np.float64]:
    """Return the unbiased estimate ``p (1 - p) / (n - 1)`` of the variance of a mean p of n flags, for each.

    A count of 0 stands for a value that is known exactly: its variance is 0. So is that of a
    single flag, of which nothing better can be said.
    """
    p, n = _shares(means, counts)
    variance: NDArray[np.float64] = np.where(n > 0, p * (1.0 - p) / np.maximum(n - 1.0, 1.0), 0.0)
    return variance


def clearly_different(
    means: ArrayLike, counts: ArrayLike, *, standard_errors: float = 2.0
) -> NDArray[np.bool_]:
    """Return the (A, A) matrix of pairs of means that differ by more than some standard errors.

    The standard error of a difference of shares is Agresti and Caffo's: one success and one
    failure are added to each side, since ``p (1 - p) / n`` alone would call 0 of 8 certain. The
    difference itself is taken as it was found, which their interval would move towards 0.
    A count of 0 stands for a value that is known exactly.
    """
    p, n = _shares(means, counts)
    smoothed = (p * n + 1.0) / (n + 2.0)
    variance = np.where(n > 0, smoothed * (1.0 - smoothed) / (n + 2.0), 0.0)
    error = np.sqrt(variance[:, None] + variance[None, :])
    apart: NDArray[np.bool_] = np.abs(p[:, None] - p[None, :]) > standard_errors * error
    return apart


def pairwise_accuracy(scores: ArrayLike, values: ArrayLike, pairs: NDArray[np.bool_]) -> float | None:
    """Return the share of pairs that the scores order as the values do, equal scores counting one half.

    Args:
        scores: A numbers.
        values: A numbers to agree with.
        pairs: (A, A), symmetric: which pairs count. None where none does.
    """
    first, second = _finite_vector("scores", scores), _finite_vector("values", values)
    size = len(second)
    if first.shape != second.shape or pairs.shape != (size, size):
        raise ValueError(
            f"scores has shape {first.shape}, values {second.shape} and pairs {pairs.shape}, "
            "expected (A,), (A,) and (A, A)"
        )
    above, below = np.nonzero(pairs & (second[:, None] > second[None, :]))
    if above.size == 0:
        return None
    return float((0.5 + 0.5 * np.sign(first[above] - first[below])).mean())


def _shares(means: ArrayLike, counts: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    p, n = _finite_vector("means", means), _finite_vector("counts", counts)
    if p.shape != n.shape:
        raise ValueError(f"means has shape {p.shape} and counts {n.shape}, expected the same")
    if not ((p >= 0) & (p <= 1)).all() or not (n >= 0).all():
        raise DataError("means must lie in 0 ... 1 and counts must be 0 or more")
    return p, n


def _auc_point(position: float, scores: Sequence[float], won: NDArray[np.bool_]) -> AUCPoint:
    successes = int(won.sum())
    return AUCPoint(position, auc(scores, won), successes, len(won) - successes)


def _average_ranks(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ranks 1 ... n in ascending order; equal numbers share the mean of theirs."""
    _, rank_of, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    means: NDArray[np.float64] = last - (counts - 1) / 2
    return means[rank_of]


def _finite_vector(name: str, numbers: ArrayLike) -> NDArray[np.float64]:
    vector = np.asarray(numbers, dtype=np.float64)
    if vector.ndim != 1:
        raise ValueError(f"{name} has shape {vector.shape}, expected one dimension")
    if not np.isfinite(vector).all():
        position = int((~np.isfinite(vector)).argmax())
        raise DataError(f"{name}[{position}] is {vector[position]}")
    return vector


def _flags(success: ArrayLike, size: int) -> NDArray[np.bool_]:
    flags = np.asarray(success)
    if flags.shape != (size,):
        raise ValueError(f"success has shape {flags.shape}, expected ({size},)")
    if not np.isin(flags, (0, 1)).all():
        raise DataError("success must be 0 or 1 (or a bool); a graded reward has no AUC or calibration")
    return flags.astype(np.bool_)
