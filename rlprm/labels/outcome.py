"""Outcome: the labels of an outcome reward model (ORM), one scalar for the whole trajectory.

    Q̂_T = r, with weight 1; no target at any other read, none for progress

Read earlier in a trajectory, such a model says what it likes: score it with the
aggregation ``last``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlprm.functional._checks import check_trajectories
from rlprm.labels.base import LabelBatch

__all__ = ["NEEDS_VALUES", "label"]

NEEDS_VALUES = False


def label(values_BT1: Tensor | None, outcomes_B: Tensor, lengths_B: Tensor) -> LabelBatch:
    """Return the outcome at the last action's read; a trajectory without steps has no target.

    Args:
        values_BT1: not used, but for the width of the batch.
        outcomes_B: the outcome r of each trajectory, in [0, 1].
        lengths_B: number of steps of each trajectory.
    """
    width = check_trajectories(values_BT1, outcomes_B, lengths_B)
    column_T1 = torch.arange(width + 1, device=lengths_B.device)
    last_BT1 = (column_T1 == lengths_B.unsqueeze(1)) & (column_T1 > 0)
    outcomes_B1 = outcomes_B.to(torch.float32).unsqueeze(1)
    no_progress_BT = outcomes_B1.new_zeros(len(outcomes_B), width)
    return LabelBatch(
        promise=outcomes_B1.where(last_BT1, 0.0),
        progress=no_progress_BT,
        promise_weight=last_BT1.to(torch.float32),
        progress_weight=no_progress_BT.clone(),
    )
