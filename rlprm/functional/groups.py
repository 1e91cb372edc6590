"""How far each of several returns lies from the mean of its group."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rlprm.functional._checks import check_shape

__all__ = ["GroupDeviations", "group_deviations"]


class GroupDeviations(NamedTuple):
    """Results for each row; all 0 for a row that does not count."""

    deviation_B: Tensor
    """``x_b`` minus the mean of its group; exactly 0 where the group has one member, or equal ones."""
    std_B: Tensor
    """Standard deviation of the group (over its n members, not n - 1)."""
    size_B: Tensor
    """Number of members that count."""


def group_deviations(x_B: Tensor, groups_B: Tensor, counts_B: Tensor) -> GroupDeviations:
    """Compare each number with those of its group, in at least float32.

    Args:
        x_B: the numbers.
        groups_B: an integer for each, equal within a group; groups need not be contiguous.
        counts_B: boolean; rows where it is False belong to no group.
    """
    rows = len(x_B)
    check_shape("groups_B", groups_B, (rows,))
    check_shape("counts_B", counts_B, (rows,))
    if groups_B.is_floating_point() or groups_B.is_complex():
        raise ValueError(f"groups_B has dtype {groups_B.dtype}, expected an integer one")
    x_B = x_B.to(torch.promote_types(x_B.dtype, torch.float32)).where(counts_B, 0.0)
    ids_G, group_B = torch.unique(groups_B, return_inverse=True)
    zeros_G = x_B.new_zeros(len(ids_G))
    size_G = zeros_G.scatter_add(0, group_B, counts_B.to(x_B.dtype))

    def mean_of(numbers_B: Tensor) -> Tensor:
        return (zeros_G.scatter_add(0, group_B, numbers_B) / size_G.clamp(min=1))[group_B]

    # Relative to the group's least member, equal numbers are zeros: no rounding of their
    # mean is left over for a division by the deviation to blow up.
    above_B = x_B.where(counts_B, torch.inf)
    least_G = torch.full_like(zeros_G, torch.inf).scatter_reduce(0, group_B, above_B, "amin")
    above_B = (x_B - least_G[group_B]).where(counts_B, 0.0)
    deviation_B = (above_B - mean_of(above_B)).where(counts_B, 0.0)
    std_B = mean_of(deviation_B**2).sqrt().where(counts_B, 0.0)
    return GroupDeviations(deviation_B, std_B, size_G[group_B].where(counts_B, 0.0))
