"""TD residuals, generalised advantage estimation, and the TD-GAE labels of AgentPRM.

Steps are numbered ``t = 1 ... T``. Column ``t - 1`` of a ``_BT`` tensor belongs to
step t. Column t of a ``_BT1`` tensor of values holds ``v_t``, with ``v_0`` in front.
Rows are trajectories padded on the right. Results in the padding are exactly 0, and no
real entry depends on what the padding holds, NaN included.

The difference of two neighbouring values is a *link* of the chain. The functions scan
links: a link is a step if values are read after actions only.

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
    links_per_lam: int = 1,
) -> Tensor:
    """Return ``A_t = δ_t + γ λ_t A_{t+1}``, ``A_{T+1} = 0``, for ``t = 1 ... T``; 0 in the padding.

    δ as in ``td_residuals``, which also explains the arguments. The λ-return of
    the state before step t is ``A_t + V_t``. The advantages are not normalised.
    (Schulman et al. 2016, arXiv 1506.02438, eq. 16.)

    Args:
        rewards_BT: see ``td_residuals``.
        values_BT: see ``td_residuals``.
        end_values_B: see ``td_residuals``.
        lengths_B: see ``td_residuals``.
        gamma: see ``td_residuals``; must be 1 if ``links_per_lam`` is above 1.
        lam: λ in [0, 1].
        links_per_lam: n, how many links share one factor λ: ``λ_t = λ`` for t = 1, n + 1,
            2 n + 1, ..., and 1 otherwise. 1 is the textbook's GAE.
    """
    lam = check_unit_interval("lam", lam)
    residuals_BT = td_residuals(rewards_BT, values_BT, end_values_B, lengths_B, gamma=gamma)
    if links_per_lam == 1:
        return discounted_suffix_sums(residuals_BT, gamma * lam)
    if links_per_lam < 1 or gamma != 1.0:
        raise ValueError(
            f"got links_per_lam {links_per_lam} with gamma {gamma}, expected 1, or more with gamma 1"
        )
    factors_BT = torch.ones_like(residuals_BT)
    factors_BT[:, ::links_per_lam] = lam
    return varying_suffix_sums(residuals_BT, factors_BT)


def td_gae_labels(
    values_BT1: Tensor, outcomes_B: Tensor, lengths_B: Tensor, *, lam: float, links_per_lam: int = 1
) -> TDGAELabels:
    """Return AgentPRM's targets (arXiv 2511.08325), for γ = 1 and no reward before the end.

        δ_t = v_t - v_{t-1}     for t = 1 ... T-1,      δ_T = r - v_{T-1}
        Â_t = δ_t + λ Â_{t+1}   for t = T ... 1,        Â_{T+1} = 0
        Q̂_t = Â_t + v_{t-1}    for t = 1 ... T-1,      Q̂_T = r,      Q̂_0 = G_1 = Â_1 + v_0

    ``v_T`` itself enters nowhere: the outcome r stands in its place, as the value
    the chain ends with. ``Q̂_0``, the λ-return of the initial state, is this
    project's addition. A row of length 0 has the one target ``Q̂_0 = r``.

    The same call labels any chain of predictions of one outcome. ``lengths_B`` then counts
    the links, one fewer than the predictions. The interleaved chain x_1, v_1, x_2, v_2, ...,
    x_T, v_T has 2 T - 1 links: T of actions, ``v_t - x_t``, and T - 1 of observations,
    ``x_{t+1} - v_t``. With one λ a link, the outcome's weight falls by λ² from one action to the
    one before. With one λ for two links the factor stands behind the action's link:

        Â(action t) = v_t - x_t + λ Â(observation t)
        Â(observation t) = x_{t+1} - v_t + Â(action t+1)

    The weight then falls by λ an action. The states cancel out of the actions' targets:
    ``Q̂_t`` is the one that the chain v_0, v_1, ..., v_T with ``v_0 = x_1`` has for the same λ,
    and ``Â(action t)`` is that chain's ``Â_t`` without the luck of the observation before,
    ``x_t - v_{t-1}``. The target of ``x_t`` is the λ-return ``x_t + Â(action t)``, as that of ``v_0`` is.

    Args:
        values_BT1: ``v_0 ... v_T`` of the current model; no gradient flows through it.
        outcomes_B: r of each trajectory.
        lengths_B: T of each row.
        lam: λ in [0, 1].
        links_per_lam: how many links share one λ, see ``gae``.
    """
    rows, columns = check_matrix("values_BT1", values_BT1, min_columns=2)
    check_shape("outcomes_B", outcomes_B, (rows,))
    before_BT = values_BT1.detach()[:, :-1]
    before_BT = before_BT.to(torch.promote_types(before_BT.dtype, torch.float32))
    outcomes_B = outcomes_B.detach().to(before_BT.dtype)

    no_rewards_BT = torch.zeros_like(before_BT)
    progress_BT = gae(
        no_rewards_BT, before_BT, outcomes_B, lengths_B, gamma=1.0, lam=lam, links_per_lam=links_per_lam
    )

    returns_BT = progress_BT + before_BT  # G_t = Â_t + v_{t-1}
    promise_BT1 = torch.cat([returns_BT[:, :1], returns_BT], dim=1)
    is_end_BT1 = torch.arange(columns, device=lengths_B.device) == lengths_B.unsqueeze(1)
    promise_BT1 = torch.where(is_end_BT1, outcomes_B.unsqueeze(1), promise_BT1)
    promise_BT1 = promise_BT1.masked_fill(~length_mask(lengths_B + 1, columns), 0.0)
    return TDGAELabels(promise_BT1, progress_BT)
