"""From a batch and the values of PRM and critic to the credit of every sampled token; pure.

outcomes, PRM values -> step rewards (- KL penalty) -> advantages -> whitened -> tokens
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlprm.errors import ConfigError
from rlprm.functional.kl import kl_values
from rlprm.functional.moments import moment_sums, moments, whiten
from rlprm.functional.tokens import put_on_first_tokens, spread_over_tokens, sum_over_tokens
from rlprm.rl import advantages, rewards
from rlprm.rl.advantages import AdvantageInputs
from rlprm.rl.batch import Batch, PRMValues
from rlprm.rl.rewards import StepRewards

__all__ = ["WHITENINGS", "Credit", "CreditSetting", "OldLogprobs", "assign_credit"]

WHITENINGS = ("auto", "both", "scale", "none")


@dataclass(frozen=True)
class CreditSetting:
    """The settings that decide the credit."""

    reward: str = "progress"
    reward_kwargs: Mapping[str, Any] | None = None
    advantage: str = "turn_gae"
    advantage_kwargs: Mapping[str, Any] | None = None
    gamma: float = 1.0
    bootstrap_truncations: bool = False
    kl_penalty: float = 0.0
    """Weight of k1 in the reward; 0 if the KL is a term of the loss, or unused."""
    whiten: str = "auto"
    """``both`` (centre and scale), ``scale``, ``none``, or ``auto``: what the estimator asks for."""


@dataclass(frozen=True, eq=False)
class OldLogprobs:
    """The policy that acted, as the trainer reads it before the update; 0 at unsampled tokens."""

    logprobs_BL: Tensor
    values_BL: Tensor
    """Zeros without a critic."""
    ref_logprobs_BL: Tensor | None = None
    """None unless a reference was read."""
    read_rows: Sequence[int] | None = None
    """Rows whose policy was read, if the others have the sampler's log-probabilities; None: all rows."""


@dataclass(frozen=True, eq=False)
class Credit:
    """The update's targets."""

    advantages_BL: Tensor
    """(B, L), whitened; 0 at unsampled tokens."""
    returns_BL: Tensor
    """(B, L): targets of the critic, where ``has_return_BL``."""
    has_return_BL: Tensor
    """(B, L), boolean: where the critic learns; nowhere without one."""
    rewards: StepRewards
    """The shares of PRM and outcome, (B, T) each."""
    kl_penalty_BT: Tensor
    """KL penalty, subtracted from the reward of each step."""
    raw_std: float
    """Standard deviation of the advantages before whitening."""


def assign_credit(batch: Batch, prm: PRMValues | None, old: OldLogprobs, setting: CreditSetting) -> Credit:
    """Return the credit of every sampled token.

    An estimator that works on steps gives each token of an action the advantage of its step, and its
    critic learns at the first token of each: the value before the step.

    Raises:
        ConfigError: if a reward or an estimator lacks an input.
        DataError: for values or outcomes outside their range.
    """
    module = advantages.load(setting.advantage)
    reward_kwargs = dict(setting.reward_kwargs or {})
    bootstrapped_B = batch.truncated_B if setting.bootstrap_truncations else None
    values_BT1, states_BT = (None, None) if prm is None else (prm.values_BT1, prm.states_BT)
    paid = rewards.load(setting.reward).step_rewards(
        values_BT1, batch.outcomes_B, batch.lengths_B, gamma=setting.gamma, states_BT=states_BT,
        bootstrapped_B=bootstrapped_B, **reward_kwargs,
    )  # fmt: skip
    kl_penalty_BT = torch.zeros_like(paid.outcome)
    if setting.kl_penalty and old.ref_logprobs_BL is not None:
        kl_BL = kl_values(old.logprobs_BL, old.ref_logprobs_BL, batch.layout.sampled)
        kl_penalty_BT = setting.kl_penalty * sum_over_tokens(kl_BL, batch.layout)
    critic_values_BT = old.values_BL.gather(1, batch.starts_BT)
    estimated = module.estimate(
        AdvantageInputs(
            rewards_BT=paid.total - kl_penalty_BT,
            lengths_B=batch.lengths_B,
            bootstrapped_B=bootstrapped_B,
            values_BT=critic_values_BT,
            values_BL=old.values_BL,
            end_values_B=_end_values(batch, values_BT1, setting),
            prm_values_BT1=values_BT1,
            prm_states_BT=states_BT,
            groups_B=batch.groups_B,
            layout=batch.layout,
        ),
        gamma=setting.gamma,
        **dict(setting.advantage_kwargs or {}),
    )
    stats = moments(moment_sums(estimated.advantages, estimated.mask))
    how = module.WHITENING if setting.whiten == "auto" else setting.whiten
    credited = estimated.advantages
    if how != "none":
        credited = whiten(credited, estimated.mask, stats, centre=how == "both")
    zeros_BL = torch.zeros_like(old.values_BL)
    if module.LEVEL == "token":
        advantages_BL, returns_BL, has_return_BL = credited, estimated.returns, estimated.mask
    else:
        advantages_BL = spread_over_tokens(credited, batch.layout)
        returns_BL = has_return_BL = None
        if estimated.returns is not None:
            returns_BL = put_on_first_tokens(estimated.returns, batch.layout, batch.starts_BT)
            has_return_BL = put_on_first_tokens(estimated.mask.float(), batch.layout, batch.starts_BT) > 0
    return Credit(
        advantages_BL=advantages_BL,
        returns_BL=zeros_BL if returns_BL is None else returns_BL,
        has_return_BL=zeros_BL.bool() if has_return_BL is None or returns_BL is None else has_return_BL,
        rewards=paid,
        kl_penalty_BT=kl_penalty_BT,
        raw_std=stats.std,
    )


def _end_values(batch: Batch, values_BT1: Tensor | None, setting: CreditSetting) -> Tensor | None:
    """Return the expected return after a truncation: the PRM's last value, scaled as the critic's values are.

    The critic is never read after the last action: the environment's last answer is not among the tokens.
    """
    if not setting.bootstrap_truncations or values_BT1 is None:
        return None
    factor = rewards.critic_factor(setting.reward, setting.reward_kwargs or {})
    if factor is None:
        raise ConfigError(f"the reward {setting.reward} cannot bootstrap truncated episodes")
    last_B = values_BT1.gather(1, batch.lengths_B.unsqueeze(1)).squeeze(1)
    return factor * last_B.clamp(0.0, 1.0)
