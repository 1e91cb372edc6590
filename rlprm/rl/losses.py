"""PPO's losses over the sampled tokens of a reading: policy, critic, entropy and KL, and their reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rlprm.functional.kl import kl_loss
from rlprm.functional.ppo import (
    PolicyLoss,
    approx_kl,
    likelihood_loss,
    means_over,
    policy_loss,
    truncated_importance_weights,
    value_loss,
)
from rlprm.rl.actor_critic import Reading
from rlprm.rl.batch import Batch
from rlprm.rl.config import RLConfig
from rlprm.rl.credit import Credit, OldLogprobs

__all__ = ["REPORTS", "Denominators", "Targets", "count_denominators", "select_targets", "total_loss"]

REPORTS = (
    "policy_loss",
    "value_loss",
    "entropy",
    "approx_kl",
    "clip_fraction",
    "value_clip_fraction",
    "kl_loss",
)
"""Names of the reports of a loss, in order; each report sums over the micro-batches of a step."""


class Denominators(NamedTuple):
    """Divisors of the means of one optimiser step, over all its micro-batches and processes."""

    tokens: int
    """Number of sampled tokens that count; at least 1."""
    returns: int
    """Number of tokens with a target for the critic; at least 1."""
    objective: int
    """Number of terms of the objective: tokens, messages, or tokens that are imitated; at least 1."""


def count_denominators(batch: Batch, credit: Credit, rows: list[int], config: RLConfig) -> Denominators:
    """Count the tokens and messages of a step's rows."""
    returns = int(credit.has_return_BL[rows].sum())
    in_loss_BL = batch.in_loss[rows]
    tokens = objective = int(in_loss_BL.sum())
    if config.clones:
        objective = int((in_loss_BL & (credit.advantages_BL[rows] != 0)).sum())
    elif config.importance_level == "message":
        objective = len(torch.unique(_messages(batch, rows, in_loss_BL)))
    return Denominators(max(1, tokens), max(1, returns), max(1, objective))


def _messages(batch: Batch, rows: list[int], chosen_BL: Tensor) -> Tensor:
    """Return (N,): a number for the message of each chosen token (B', L'), equal within a message."""
    steps_BL = batch.layout.step_BL[rows, : chosen_BL.shape[1]]
    first_B = batch.starts_BT.shape[1] * torch.arange(len(rows))
    return (steps_BL + first_B.unsqueeze(1))[chosen_BL]


@dataclass(frozen=True, eq=False)
class Targets:
    """The fixed numbers of N sampled tokens in a loss, (N,) each, on the model's device."""

    in_loss: Tensor
    """Boolean: which tokens the policy's losses count."""
    messages: Tensor
    """The message of each token, from 0 without gaps."""
    sampler_logprobs: Tensor
    """log π of the policy that acted, as the sampler computed it."""
    old_logprobs: Tensor
    """log π of the policy that acted, as the trainer computed it."""
    old_values: Tensor
    ref_logprobs: Tensor | None
    advantages: Tensor
    returns: Tensor
    has_return: Tensor


def select_targets(
    batch: Batch,
    credit: Credit,
    old: OldLogprobs,
    *,
    rows: list[int],
    sampled_BL: Tensor,
    device: torch.device,
) -> Targets:
    """Select the sampled tokens of some rows.

    Args:
        batch: all episodes.
        credit: of all episodes.
        old: of all episodes.
        rows: B' of them.
        sampled_BL: (B', L'), boolean: which tokens of these rows.
        device: for the targets.
    """

    def selected(x_BL: Tensor) -> Tensor:
        return x_BL[rows, : sampled_BL.shape[1]][sampled_BL].to(device)

    reference = old.ref_logprobs_BL
    messages_N = torch.unique(_messages(batch, rows, sampled_BL), return_inverse=True)[1]
    return Targets(
        in_loss=selected(batch.in_loss),
        messages=messages_N.to(device),
        sampler_logprobs=selected(batch.sampler_logprobs_BL),
        old_logprobs=selected(old.logprobs_BL),
        old_values=selected(old.values_BL),
        ref_logprobs=None if reference is None else selected(reference),
        advantages=selected(credit.advantages_BL),
        returns=selected(credit.returns_BL),
        has_return=selected(credit.has_return_BL),
    )


def total_loss(
    reading: Reading, targets: Targets, config: RLConfig, denominators: Denominators, *, critic_only: bool
) -> tuple[Tensor, Tensor]:
    """Return policy loss - c_H entropy + c_KL KL + c_V value loss, and its parts.

    Args:
        reading: of N tokens by the present model, entropy included.
        targets: of the same tokens.
        config: clips, coefficients and kinds of losses.
        denominators: of the step.
        critic_only: whether the policy's part is left out.

    Returns:
        The loss, a scalar with its graph, and the reports, (7,) in the order of ``REPORTS``, without.
    """
    old_N = targets.sampler_logprobs if config.old_logprobs == "sampler" else targets.old_logprobs
    policy = _objective(reading.logprobs, old_N, targets, config, denominators)
    value = value_loss(
        reading.values, targets.old_values, targets.returns, targets.has_return,
        denominator=denominators.returns, clip=config.value_clip,
    )  # fmt: skip
    entropy = reading.entropy.where(targets.in_loss, 0.0).sum() / denominators.tokens
    if not config.entropy_coef:
        entropy = (
            entropy.detach()
        )  # only reported: its backward pass would cost as much as that of the logits
    kl = torch.zeros_like(entropy)
    if config.kl_coef and config.kl_in == "loss" and targets.ref_logprobs is not None:
        kl = kl_loss(
            reading.logprobs,
            targets.ref_logprobs,
            old_N,
            targets.in_loss,
            denominator=denominators.tokens,
            kind=config.kl_loss,
        )
    actor = policy.loss - config.entropy_coef * entropy + config.kl_coef * kl
    total = (0.0 if critic_only else 1.0) * actor + config.value_coef * value.loss
    parts = [
        policy.loss, value.loss, entropy, policy.approx_kl, policy.clip_fraction, value.clip_fraction, kl,
    ]  # fmt: skip
    return total, torch.stack([part.detach().float() for part in parts])


def _objective(
    logprobs_N: Tensor, old_N: Tensor, targets: Targets, config: RLConfig, denominators: Denominators
) -> PolicyLoss:
    """Return the policy's objective: PPO's of tokens or of messages, or the likelihood of what is imitated.

    The KL is that of tokens in each case, so that ``target_kl`` means the same.
    """
    moved = approx_kl(logprobs_N, old_N, targets.in_loss, denominator=denominators.tokens)
    if config.clones:
        loss = likelihood_loss(
            logprobs_N, targets.advantages, targets.in_loss, denominator=denominators.objective
        )
        return PolicyLoss(loss, torch.zeros_like(moved), moved)
    numbers = [
        logprobs_N,
        old_N,
        targets.advantages,
        targets.in_loss,
        targets.old_logprobs,
        targets.sampler_logprobs,
    ]
    if config.importance_level == "message":
        count = int(targets.messages.max()) + 1
        numbers = [means_over(x_N, targets.messages, count) for x_N in numbers]
    logprobs, old, advantages, mask, trainer, sampler = numbers
    weights = None
    if config.importance_cap:
        weights = truncated_importance_weights(trainer, sampler, mask, cap=config.importance_cap)
    assert config.clip_low is not None  # settled
    assert config.clip_high is not None
    objective = policy_loss(
        logprobs, old, advantages, mask, denominator=denominators.objective,
        clip_low=config.clip_low, clip_high=config.clip_high, dual_clip=config.dual_clip, weights=weights,
    )  # fmt: skip
    return objective._replace(approx_kl=moved)
