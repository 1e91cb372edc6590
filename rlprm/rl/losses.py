"""PPO's losses over the sampled tokens of a reading: policy, critic, entropy and KL, and their reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

from rlprm.functional.kl import kl_loss
from rlprm.functional.ppo import policy_loss, truncated_importance_weights, value_loss
from rlprm.rl.actor_critic import Reading
from rlprm.rl.batch import Batch
from rlprm.rl.config import RLConfig
from rlprm.rl.credit import Credit, OldLogprobs

__all__ = ["REPORTS", "Denominators", "Targets", "total_loss"]

REPORTS = (
    "policy_loss",
    "value_loss",
    "entropy",
    "approx_kl",
    "clip_fraction",
    "value_clip_fraction",
    "kl_loss",
)
"""What a loss tells of itself, in this order; each adds up over the micro-batches of a step."""


class Denominators(NamedTuple):
    """Of the means of one optimiser step: its rows in all micro-batches and processes."""

    tokens: int
    """Sampled."""
    returns: int
    """The critic has targets for; at least 1."""

    @classmethod
    def of_rows(cls, batch: Batch, credit: Credit, rows: list[int]) -> Self:
        """Count the rows of a step."""
        returns = int(credit.has_return_BL[rows].sum())
        return cls(int(batch.layout.sampled[rows].sum()), max(1, returns))


@dataclass(frozen=True, eq=False)
class Targets:
    """What is known of N sampled tokens before the update, (N,) each, on the model's device."""

    sampler_logprobs: Tensor
    """log π of the policy that acted, as it said itself."""
    old_logprobs: Tensor
    """The same, read again by the trainer."""
    old_values: Tensor
    ref_logprobs: Tensor | None
    advantages: Tensor
    returns: Tensor
    has_return: Tensor

    @classmethod
    def select(
        cls,
        batch: Batch,
        credit: Credit,
        evaluated: OldLogprobs,
        *,
        rows: list[int],
        where: Tensor,
        device: torch.device,
    ) -> Self:
        """Take the tokens of some rows.

        Args:
            batch: all episodes.
            credit: of them.
            evaluated: of them.
            rows: B' of them.
            where: (B', L'), boolean: at which of their tokens.
            device: to put them on.
        """

        def chosen(x_BL: Tensor) -> Tensor:
            return x_BL[rows, : where.shape[1]][where].to(device)

        reference = evaluated.ref_logprobs_BL
        return cls(
            sampler_logprobs=chosen(batch.sampler_logprobs_BL),
            old_logprobs=chosen(evaluated.logprobs_BL),
            old_values=chosen(evaluated.values_BL),
            ref_logprobs=None if reference is None else chosen(reference),
            advantages=chosen(credit.advantages_BL),
            returns=chosen(credit.returns_BL),
            has_return=chosen(credit.has_return_BL),
        )


def total_loss(
    reading: Reading, targets: Targets, config: RLConfig, of: Denominators, *, critic_only: bool
) -> tuple[Tensor, Tensor]:
    """Return policy loss - c_H entropy + c_KL KL + c_V value loss, and its parts.

    Args:
        reading: what the model says of N tokens now, entropy included.
        targets: what was known of them.
        config: clips, coefficients and kinds of losses.
        of: what the sums are divided by.
        critic_only: whether the policy's part is left out.

    Returns:
        The loss, a scalar with its graph, and the reports, (7,) in the order of ``REPORTS``, without.
    """
    ones_N = torch.ones_like(reading.logprobs)
    from_sampler = config.old_logprobs == "sampler"
    old_N = targets.sampler_logprobs if from_sampler else targets.old_logprobs
    weights_N = None
    if config.importance_cap is not None:
        weights_N = truncated_importance_weights(
            targets.old_logprobs, targets.sampler_logprobs, ones_N, cap=config.importance_cap
        )
    policy = policy_loss(
        reading.logprobs, old_N, targets.advantages, ones_N, denominator=of.tokens,
        clip_low=config.clip_low, clip_high=config.clip_high, dual_clip=config.dual_clip, weights=weights_N,
    )  # fmt: skip
    value = value_loss(
        reading.values, targets.old_values, targets.returns, targets.has_return,
        denominator=of.returns, clip=config.value_clip,
    )  # fmt: skip
    entropy = reading.entropy.sum() / of.tokens
    if not config.entropy_coef:
        entropy = entropy.detach()  # a report alone: its way back would cost as much as the logits'
    held = torch.zeros_like(entropy)
    if config.kl_coef and config.kl_in == "loss" and targets.ref_logprobs is not None:
        held = kl_loss(
            reading.logprobs, targets.ref_logprobs, old_N, ones_N, denominator=of.tokens, kind=config.kl_loss
        )
    actor = policy.loss - config.entropy_coef * entropy + config.kl_coef * held
    total = (0.0 if critic_only else 1.0) * actor + config.value_coef * value.loss
    parts = [
        policy.loss, value.loss, entropy, policy.approx_kl, policy.clip_fraction, value.clip_fraction, held,
    ]  # fmt: skip
    return total, torch.stack([part.detach().float() for part in parts])
