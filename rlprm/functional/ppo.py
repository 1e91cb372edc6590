"""Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347): the losses, as sums.

Everything works on tensors of any one shape: tokens (B, L), or turns (B, T) with the
log-probability of the whole message (``tokens.sum_over_tokens``). Sums are divided by
a ``denominator`` that the caller counts over the whole update, all micro-batches and
processes; losses and reports of the parts then add up to those of the whole.

Where the mask is 0 an entry is taken out before anything nonlinear: neither the loss
nor its gradient depends on what stands there, sentinels and NaN included.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from rlprm.functional._checks import check_number, check_shape, check_unit_interval
from rlprm.functional.kl import masked_difference

__all__ = [
    "PolicyLoss",
    "ValueLoss",
    "policy_loss",
    "truncated_importance_weights",
    "value_loss",
]


_FURTHEST = 20.0
"""Nats; the largest logarithm of a ratio."""


class PolicyLoss(NamedTuple):
    """The clipped objective of a part of the update; the reports add up over parts, too."""

    loss: Tensor
    """What to call ``backward`` on (a scalar)."""
    clip_fraction: Tensor
    """Share of entries that are clipped, i.e. that pull nowhere; detached."""
    approx_kl: Tensor
    """``mean(ρ - 1 - log ρ)``, an estimate of KL(π_old || π), never negative; detached."""


class ValueLoss(NamedTuple):
    """The critic's loss of a part of the update; the report adds up over parts, too."""

    loss: Tensor
    """What to call ``backward`` on (a scalar)."""
    clip_fraction: Tensor
    """Share of entries whose clipped error is the larger one; detached."""


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    denominator: float | Tensor,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
    weights: Tensor | None = None,
) -> PolicyLoss:
    """Return ``-Σ w min(ρ A, clip(ρ, 1 - clip_low, 1 + clip_high) A) / denominator``, ``ρ = π / π_old``.

    Where log ρ is beyond ±20 the ratio stays there and has no gradient: its exponential would not be finite.

    With ``dual_clip`` d > 1 (arXiv 1912.09729) a term with A < 0 is at least ``d A``: a token
    that became far more likely than when it was sampled cannot push without limit.

    Args:
        logprobs: log π, with gradient.
        old_logprobs: log π_old, by the same model before the first update (not the sampler's
            own numbers where these differ; see ``truncated_importance_weights``).
        advantages: A; no gradient flows into it.
        mask: which entries count.
        denominator: how many entries count in the whole update.
        clip_low: ε below 1, in [0, 1].
        clip_high: ε above 1, above 0; larger than ``clip_low`` is "clip higher" (arXiv 2503.14476).
        dual_clip: d, or None for none.
        weights: w, for instance importance weights; 1 where None. No gradient flows into them.

    Raises:
        ConfigError: for a clip range that makes no sense.
    """
    check_unit_interval("clip_low", clip_low)
    check_number("clip_high", clip_high, above=0.0)
    if dual_clip is not None:
        check_number("dual_clip", dual_clip, above=1.0)
    check_shape("advantages", advantages, tuple(logprobs.shape))
    log_ratio = masked_difference(logprobs, old_logprobs.detach(), mask).clamp(-_FURTHEST, _FURTHEST)
    exists = mask != 0
    advantages = advantages.detach().to(log_ratio.dtype).where(exists, 0.0)
    ratio = log_ratio.exp()

    objective = torch.minimum(ratio * advantages, ratio.clamp(1.0 - clip_low, 1.0 + clip_high) * advantages)
    clipped = ((advantages > 0) & (ratio > 1.0 + clip_high)) | ((advantages < 0) & (ratio < 1.0 - clip_low))
    if dual_clip is not None:
        objective = torch.where(advantages < 0, torch.maximum(objective, dual_clip * advantages), objective)
        clipped = clipped | ((advantages < 0) & (ratio > dual_clip))
    if weights is not None:
        check_shape("weights", weights, tuple(logprobs.shape))
        objective = objective * weights.detach().to(objective.dtype).where(exists, 0.0)
    with torch.no_grad():
        approx_kl = (torch.expm1(log_ratio) - log_ratio).sum() / denominator
        clip_fraction = clipped.to(ratio.dtype).sum() / denominator
    return PolicyLoss(-objective.sum() / denominator, clip_fraction, approx_kl)


def value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    mask: Tensor,
    *,
    denominator: float | Tensor,
    clip: float | None = None,
) -> ValueLoss:
    """Return ``Σ ½ (V - R)² / denominator``, or with ``clip`` ``Σ ½ max((V - R)², (V' - R)²) / denominator``.

    ``V' = V_old + clamp(V - V_old, -clip, clip)``. The larger error is kept, so that clipping
    stops a value that has moved far enough *towards* its target and never one that moved away.

    Args:
        values: V, with gradient.
        old_values: V before the first update of this batch; not used without ``clip``.
        returns: R, the targets; no gradient flows into them.
        mask: which entries count.
        denominator: how many entries count in the whole update.
        clip: the largest change of a value that still pulls, above 0; None for no limit.
    """
    error = masked_difference(values, returns.detach(), mask)
    losses = 0.5 * error**2
    beyond = torch.zeros_like(losses)
    if clip is not None:
        clip = check_number("the value clip", clip, above=0.0)
        change = masked_difference(values, old_values.detach(), mask)
        losses_if_clipped = 0.5 * (error + (change.clamp(-clip, clip) - change)) ** 2
        beyond = (losses_if_clipped > losses).to(losses.dtype)
        losses = torch.maximum(losses, losses_if_clipped)
    return ValueLoss(losses.sum() / denominator, beyond.sum() / denominator)


def truncated_importance_weights(
    trainer_logprobs: Tensor, sampler_logprobs: Tensor, mask: Tensor, *, cap: float
) -> Tensor:
    """Return ``min(π_old(a) / μ(a), cap)`` for each token, 0 where the mask is 0; without gradient.

    μ is the policy as the sampler computed it (another engine, another precision), π_old the same
    policy as the trainer computes it. Multiplied into the policy loss, the weights correct for tokens
    being drawn from μ; the cap bounds the variance at the price of a bias. They stand beside PPO's
    ratio π / π_old, and do not replace it. (verl#2953, trl#3867.)

    Args:
        trainer_logprobs: log π_old.
        sampler_logprobs: log μ, as stored with the trajectory.
        mask: which entries count.
        cap: above 0; 2 is common.
    """
    cap = check_number("the cap of importance weights", cap, above=0.0)
    log_ratio = masked_difference(trainer_logprobs.detach(), sampler_logprobs.detach(), mask)
    return log_ratio.clamp(max=math.log(cap)).exp().where(mask != 0, 0.0)
