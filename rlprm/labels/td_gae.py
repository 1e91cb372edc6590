"""TD-GAE: AgentPRM's labels (arXiv 2511.08325), bootstrapped from the current model.

The equations are the paper's, see ``rlprm.functional.returns.td_gae_labels``. This project adds
a target for ``v_0``, the λ-return of the initial state.

The labels are defined for γ = 1 and an outcome at the end only. This module refuses any other
γ; ``rlprm.labels.base.check_no_intermediate_reward`` refuses intermediate rewards, which are no
argument of ``label``. The discount of RL is a separate setting.
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
LAM_PER = ("link", "action")
"""What λ may count once for."""


def label(
    values_BT1: Tensor | None,
    outcomes_B: Tensor,
    lengths_B: Tensor,
    *,
    lam: float = 0.95,
    lam_per: str = "link",
    gamma: float = 1.0,
    links_per_action: int = 1,
) -> LabelBatch:
    """Return ``Q̂_0 ... Q̂_T`` and ``Â_1 ... Â_T``; every value and link that exists has weight 1.

    Args:
        values_BT1: ``v_0 ... v_T``, required.
        outcomes_B: the outcome r of each trajectory, in [0, 1].
        lengths_B: T, the number of links of each trajectory.
        lam: λ of the scan, in [0, 1]; 1 is Monte-Carlo, 0 teaches nothing but the last step.
        lam_per: what λ counts once for, ``"link"`` or ``"action"``. They differ with ``value_reads:
            state_and_action`` only: there λ a link is λ² an action, see ``td_gae_labels``.
        gamma: must be 1.
        links_per_action: see ``EstimatorModule``.

    Raises:
        ConfigError: for a setting out of range, or missing values.
    """
    if lam_per not in LAM_PER:
        raise ConfigError(f"lam_per: got {lam_per!r}, allowed: {', '.join(LAM_PER)}")
    if gamma != 1.0:
        raise ConfigError(f"TD-GAE labels are defined for gamma = 1, got {gamma!r}")
    if values_BT1 is None:
        raise ConfigError("TD-GAE labels need the values of the current model")
    width = check_trajectories(values_BT1, outcomes_B, lengths_B)
    promise_BT1, progress_BT = td_gae_labels(
        values_BT1,
        outcomes_B,
        lengths_B,
        lam=lam,
        links_per_lam=links_per_action if lam_per == "action" else 1,
    )
    return LabelBatch(
        promise=promise_BT1,
        progress=progress_BT,
        promise_weight=length_mask(lengths_B + 1, width + 1).to(promise_BT1.dtype),
        progress_weight=length_mask(lengths_B, width).to(progress_BT.dtype),
    )
