"""TD residuals, generalised advantage estimation, and the TD-GAE labels of AgentPRM.

Steps are numbered ``t = 1 ... T``. Column ``t - 1`` of a ``_BT`` tensor belongs to
step t; column t of a ``_BT1`` tensor of value reads holds ``v_t``, with ``v_0`` in
front. Rows are trajectories padded on the right; whatever the padding holds
(NaN included), results there are exactly 0 and no real entry depends on it.

Everything is computed in at least float32, whatever autocast is in force:
the scan uses no matrix product.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from rlprm.functional._checks import check_lengths, check_matrix, check_shape, check_unit_interval
from rlprm.functional.masking import length_mask

__all__ = [
    "TDGAELabels",
    "discounted_suffix_sums",
    "gae",
    "td_gae_labels",
    "td_residuals",
    "varying_suffix_sums",
]


class TDGAELabels(NamedTuple):
    """Targets of a batch of trajectories; 0 in the padding."""

    promise: Tensor
    """(B, T+1): targets of ``v_0 ... v_T``."""
    progress: Tensor
    """(B, T): targets of ``v_t - v_{t-1}``, ``t = 1 ... T``."""


def discounted_suffix_sums(x_BT: Tensor, discount: float) -> Tensor:
    r"""Solve ``y_t = x_t + c y_{t+1}`` for ``t = T ... 1``, with ``y_{T+1} = 0`` and c in [0, 1].

    Closed form: ``y_t = Σ_{k >= 0} c^k x_{t+k}``. The scan doubles its window
    instead of walking the steps: with ``y^(0) = x`` and

        y_t^(i+1) = y_t^(i) + c^(2^i) y_{t+2^i}^(i)

    ``y^(i)`` sums the window ``t ... t + 2^i - 1``, so ceil(log2 T) vector
    operations suffice. The window starts at t, hence zeros appended on the right
    change nothing, and no power is divided by, hence nothing overflows.
    (Hillis and Steele 1986, "Data parallel algorithms".)
    """
    _, width = check_matrix("x_BT", x_BT)
    factor = check_unit_interval("discount", discount)
    y_BT, window = x_BT, 1
    while window < width and factor > 0.0:
        y_BT = torch.add(y_BT, pad(y_BT[:, window:], (0, window)), alpha=factor)
        window, factor = 2 * window, factor * factor
    return y_BT


def varying_suffix_sums(x_BT: Tensor, factors_BT: Tensor) -> Tensor:
    """Solve ``y_t = x_t + c_t y_{t+1}`` for ``t = T ... 1``, with ``y_{T+1} = 0`` and each c_t in [0, 1].

    The scan of ``discounted_suffix_sums`` with a factor of its own at every place: the
    window ``t ... t + 2^i - 1`` keeps the product of its factors beside its sum. A factor
    of 1 where x is 0 makes a place transparent, as if it were not there.
    """
    rows, width = check_matrix("x_BT", x_BT)
    check_shape("factors_BT", factors_BT, (rows, width))
    y_BT, factors_BT, window = x_BT, factors_BT.to(x_BT.dtype), 1
    while window < width:
        y_BT = y_BT + factors_BT * pad(y_BT[:, window:], (0, window))
        factors_BT = factors_BT * pad(factors_BT[:, window:], (0, window))
        window *= 2
    return y_BT


def td_residuals(
    rewards_BT: Tensor, values_BT: Tensor, end_values_B: Tensor, lengths_B: Tensor, *, gamma: float
) -> Tensor:
    """Return ``δ_t = r_t + γ V_{t+1} - V_t`` for ``t = 1 ... T``; 0 in the padding.

    Args:
        rewards_BT: ``r_t``, the reward of step t.
        values_BT: ``V_t``, the value *before* step t (of the state it acts in).
        end_values_B: ``V_{T+1}``, what follows the last step: 0 where the episode
            terminated, the bootstrapped value where it was truncated. There is no
            default, so that neither is mistaken for the other.
        lengths_B: T of each row, 0 allowed.
        gamma: the discount γ from one step to the next (never from the episode's start).
    """
    rows, width = check_matrix("values_BT", values_BT)
    check_matrix("rewards_BT", rewards_BT)
    check_shape("rewards_BT", rewards_BT, (rows, width))
    check_shape("end_values_B", end_values_B, (rows,))
    check_lengths(lengths_B, rows, width)
    gamma = check_unit_interval("gamma", gamma)
    dtype = torch.promote_types(values_BT.dtype, torch.float32)
    values_BT, rewards_BT, end_values_B = (x.to(dtype) for x in (values_BT, rewards_BT, end_values_B))

    column_T = torch.arange(width, device=values_BT.device)
    is_last_BT = column_T == (lengths_B - 1).unsqueeze(1)
    next_values_BT = torch.where(is_last_BT, end_values_B.unsqueeze(1), values_BT.roll(-1, dims=1))
    residuals_BT = rewards_BT + gamma * next_values_BT - values_BT
    return residuals_BT.masked_fill(~length_mask(lengths_B, width), 0.0)


def gae(
    rewards_BT: Tensor,
    values_BT: Tensor,
    end_values_B: Tensor,
    lengths_B: Tensor,
    *,
    gamma: float,
    lam: float,
) -> Tensor:
    """Return ``A_t = δ_t + γ λ A_{t+1}``, ``A_{T+1} = 0``, for ``t = 1 ... T``; 0 in the padding.

    δ as in ``td_residuals``, which also explains the arguments. The λ-return of
    the state before step t is ``A_t + V_t``. Not normalised: that is a separate
    matter. (Schulman et al. 2016, arXiv 1506.02438, eq. 16.)
    """
    lam = check_unit_interval("lam", lam)
    residuals_BT = td_residuals(rewards_BT, values_BT, end_values_B, lengths_B, gamma=gamma)
    return discounted_suffix_sums(residuals_BT, gamma * lam)


def td_gae_labels(values_BT1: Tensor, outcomes_B: Tensor, lengths_B: Tensor, *, lam: float) -> TDGAELabels:
    """Return AgentPRM's targets (arXiv 2511.08325), for γ = 1 and no reward before the end.

        δ_t = v_t - v_{t-1}     for t = 1 ... T-1,      δ_T = r - v_{T-1}
        Â_t = δ_t + λ Â_{t+1}   for t = T ... 1,        Â_{T+1} = 0
        Q̂_t = Â_t + v_{t-1}    for t = 1 ... T-1,      Q̂_T = r,      Q̂_0 = G_1 = Â_1 + v_0

    ``v_T`` itself enters nowhere: the outcome r stands in its place, as the value
    the chain ends with. ``Q̂_0``, the λ-return of the initial state, is this
    project's addition. A row of length 0 has the one target ``Q̂_0 = r``.

    The same call labels any chain of predictions of one outcome, for instance
    values read after observations and after actions in turn; ``lengths_B`` then
    counts the predictions that follow the first.

    Args:
        values_BT1: ``v_0 ... v_T`` of the current model; no gradient flows through it.
        outcomes_B: r of each trajectory.
        lengths_B: T of each row.
        lam: λ in [0, 1].
    """
    rows, columns = check_matrix("values_BT1", values_BT1, min_columns=2)
    check_shape("outcomes_B", outcomes_B, (rows,))
    before_BT = values_BT1.detach()[:, :-1]
    before_BT = before_BT.to(torch.promote_types(before_BT.dtype, torch.float32))
    outcomes_B = outcomes_B.detach().to(before_BT.dtype)

    no_rewards_BT = torch.zeros_like(before_BT)
    progress_BT = gae(no_rewards_BT, before_BT, outcomes_B, lengths_B, gamma=1.0, lam=lam)

    returns_BT = progress_BT + before_BT  # G_t = Â_t + v_{t-1}
    promise_BT1 = torch.cat([returns_BT[:, :1], returns_BT], dim=1)
    is_end_BT1 = torch.arange(columns, device=lengths_B.device) == lengths_B.unsqueeze(1)
    promise_BT1 = torch.where(is_end_BT1, outcomes_B.unsqueeze(1), promise_BT1)
    promise_BT1 = promise_BT1.masked_fill(~length_mask(lengths_B + 1, columns), 0.0)
    return TDGAELabels(promise_BT1, progress_BT)
