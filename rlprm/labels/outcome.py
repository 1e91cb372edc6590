"""Outcome: the labels of an outcome reward model (ORM), one scalar for the whole trajectory.

    Q̂_T = r, with weight 1; no target for any other value, none for progress

The values before ``v_T`` are not trained and mean nothing: score an ORM with the
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
    """Return the outcome as the last action's target; a trajectory without steps has no target.

    Args:
        values_BT1: only their width is used.
        outcomes_B: the outcome r of each trajectory, in [0, 1].
        lengths_B: T, the number of links of each trajectory.
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
