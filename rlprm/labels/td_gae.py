"""TD-GAE: AgentPRM's labels (arXiv 2511.08325), bootstrapped from the current model.

Keeps the paper's equations, see ``rlprm.functional.returns.td_gae_labels``; adds a
target for ``v_0``, the λ-return of the initial state. Defined for γ = 1 and an
outcome at the end only: any other γ is refused here, and intermediate rewards
by ``rlprm.labels.base.check_no_intermediate_reward``, since they do not reach
this function. (The discount of RL is a separate setting.)
"""

from __future__ import annotations

from torch import Tensor

from rlprm.errors import ConfigError
from rlprm.functional._checks import check_trajectories
from rlprm.functional.masking import length_mask
from rlprm.functional.returns import td_gae_labels
from rlprm.labels.base import LabelBatch

__all__ = ["NEEDS_VALUES", "label"]

NEEDS_VALUES = True


def label(
    values_BT1: Tensor | None,
    outcomes_B: Tensor,
    lengths_B: Tensor,
    *,
    lam: float = 0.95,
    gamma: float = 1.0,
) -> LabelBatch:
    """Return ``Q̂_0 ... Q̂_T`` and ``Â_1 ... Â_T``; every read and step that exists has weight 1.

    Args:
        values_BT1: ``v_0 ... v_T``, required.
        outcomes_B: the outcome r of each trajectory, in [0, 1].
        lengths_B: number of steps of each trajectory.
        lam: λ of the scan, in [0, 1]; 1 is Monte-Carlo, 0 teaches nothing but the last step.
        gamma: must be 1.
    """
    if gamma != 1.0:
        raise ConfigError(f"TD-GAE labels are defined for gamma = 1, got {gamma!r}")
    if values_BT1 is None:
        raise ConfigError("TD-GAE labels need the values of the current model")
    width = check_trajectories(values_BT1, outcomes_B, lengths_B)
    promise_BT1, progress_BT = td_gae_labels(values_BT1, outcomes_B, lengths_B, lam=lam)
    return LabelBatch(
        promise=promise_BT1,
        progress=progress_BT,
        promise_weight=length_mask(lengths_B + 1, width + 1).to(promise_BT1.dtype),
        progress_weight=length_mask(lengths_B, width).to(progress_BT.dtype),
    )
