"""Mean and standard deviation from sums that add up over micro-batches and processes.

``moment_sums`` of each part, added up (an all-reduce), then ``moments``: the same
numbers however the data is split. Taken from one micro-batch instead, they would
scale every micro-batch to the same size, and where advantages come from several
rewards, change the balance between these from one micro-batch to the next.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from rlprm.errors import DataError
from rlprm.functional._checks import check_shape

__all__ = ["Moments", "explained_variance", "moment_sums", "moments", "whiten"]

_CONSTANT = 1e-12
"""A variance below this share of the mean square is what rounding leaves of a constant."""


class Moments(NamedTuple):
    """Mean and standard deviation (over n, not n - 1) of all entries that exist."""

    mean: float
    std: float


def moment_sums(x: Tensor, mask: Tensor) -> Tensor:
    """Return ``[n, Σ x, Σ x²]`` over the entries where the mask is not 0, in float64; they may be added up.

    Args:
        x: any shape; what stands where the mask is 0 does not matter, NaN included.
        mask: the same shape.
    """
    check_shape("mask", mask, tuple(x.shape))
    exists = mask != 0
    numbers = x.detach().double().where(exists, 0.0)
    return torch.stack([exists.sum().double(), numbers.sum(), (numbers**2).sum()])


def moments(sums: Tensor) -> Moments:
    """Finish what ``moment_sums`` began.

    Raises:
        DataError: if there is not one entry, or the sums are not finite.
    """
    check_shape("sums", sums, (3,))
    count, total, squares = sums.tolist()
    if count < 1 or not (math.isfinite(total) and math.isfinite(squares)):
        raise DataError(f"no moments of {count:g} entries with the sums {total} and {squares}")
    mean = total / count
    variance = squares / count - mean**2
    return Moments(mean, math.sqrt(variance) if variance > _CONSTANT * squares / count else 0.0)


def whiten(x: Tensor, mask: Tensor, stats: Moments, *, centre: bool = True, eps: float = 1e-6) -> Tensor:
    """Return ``(x - mean) / (std + eps)``, or ``x / (std + eps)`` without centring; 0 where the mask is 0.

    Numbers that are all equal have no scale to be divided by, and are left in theirs.

    Args:
        x: any shape.
        mask: the same shape.
        stats: of *all* entries of the update, see ``moments``; never of a micro-batch.
        centre: whether to subtract the mean. Scaling alone keeps every sign.
        eps: keeps numbers that are all (nearly) equal from being blown up.
    """
    check_shape("mask", mask, tuple(x.shape))
    shifted = x - stats.mean if centre else x
    scale = stats.std + eps if stats.std else 1.0
    return (shifted / scale).where(mask != 0, 0.0)


def explained_variance(return_sums: Tensor, error_sums: Tensor) -> float | None:
    """Return ``1 - Var(R - V) / Var(R)``: 1 for a perfect critic, 0 for a constant, less for a worse one.

    Args:
        return_sums: ``moment_sums`` of the returns R, added up over micro-batches and processes.
        error_sums: the same of ``R - V``.

    Returns:
        None where the returns are constant: there is nothing to explain.
    """
    spread = moments(return_sums).std
    return None if spread == 0.0 else 1.0 - (moments(error_sums).std / spread) ** 2
