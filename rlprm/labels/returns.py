"""Returns: the outcome of this one trajectory as the target of each of its reads (λ = 1).

    Q̂_t = r        for t = 0 ... T

The Monte-Carlo return from a single sample: no model, no further rollouts, no
bias, and all the variance. Progress gets no target: it would be ``r - v_{t-1}``,
and there is no value to subtract, so its weights are 0 (use ``td_gae`` with
λ = 1 where values are at hand).
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
    """Return the outcome at every read that exists, with weight 1.

    Args:
        values_BT1: not used, but for the width of the batch.
        outcomes_B: the outcome r of each trajectory, in [0, 1].
        lengths_B: number of steps of each trajectory.
    """
    width = check_trajectories(values_BT1, outcomes_B, lengths_B)
    reads_BT1 = length_mask(lengths_B + 1, width + 1)
    outcomes_B1 = outcomes_B.to(torch.float32).unsqueeze(1)
    no_progress_BT = outcomes_B1.new_zeros(len(outcomes_B), width)
    return LabelBatch(
        promise=outcomes_B1.where(reads_BT1, 0.0),
        progress=no_progress_BT,
        promise_weight=reads_BT1.to(torch.float32),
        progress_weight=no_progress_BT.clone(),
    )
