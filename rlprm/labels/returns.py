"""Returns: the outcome of a trajectory as the target of each of its values (λ = 1).

    Q̂_t = r        for t = 0 ... T

This is the Monte-Carlo return of a single sample. It needs no model and no further
rollouts; it has no bias and the largest variance. Progress has no target and weight 0:
its target would be ``r - v_{t-1}``, which needs a model's value (``td_gae`` with λ = 1).
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlprm.functional._checks import check_trajectories
from rlprm.functional.masking import length_mask
from rlprm.labels.base import LabelBatch

__all__ = ["NEEDS_VALUES", "label"]

NEEDS_VALUES = False


def label(values_BT1: Tensor | None, outcomes_B: Tensor, lengths_B: Tensor) -> LabelBatch:
    """Return the outcome as the target of every value that exists, with weight 1.

    Args:
        values_BT1: only their width is used.
        outcomes_B: the outcome r of each trajectory, in [0, 1].
        lengths_B: T, the number of links of each trajectory.
    """
    width = check_trajectories(values_BT1, outcomes_B, lengths_B)
    exists_BT1 = length_mask(lengths_B + 1, width + 1)
    outcomes_B1 = outcomes_B.to(torch.float32).unsqueeze(1)
    no_progress_BT = outcomes_B1.new_zeros(len(outcomes_B), width)
    return LabelBatch(
        promise=outcomes_B1.where(exists_BT1, 0.0),
        progress=no_progress_BT,
        promise_weight=exists_BT1.to(torch.float32),
        progress_weight=no_progress_BT.clone(),
    )
