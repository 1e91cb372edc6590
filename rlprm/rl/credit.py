"""From a batch and the values of PRM and critic to the credit of every sampled token; pure.

outcomes, PRM values -> step rewards (- KL penalty) -> advantages -> whitened -> tokens

If the PRM's share of the reward is a difference of potentials, ``γ Φ_{t+1} - Φ_t``, the critic predicts W,
the return without the differences. The estimator gets the shaped value ``W - Φ`` with the PRM of today, and
its targets are taken back into the critic's terms. A PRM that is trained again changes Φ, not W.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlprm.errors import ConfigError
from rlprm.functional.kl import kl_values
from rlprm.functional.masking import length_mask
from rlprm.functional.moments import moment_sums, moments, whiten
from rlprm.functional.tokens import put_on_first_tokens, spread_over_tokens, sum_over_tokens
from rlprm.rl import advantages, rewards
from rlprm.rl.advantages import AdvantageInputs, Advantages
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
    prm_share: float | None = None
    """Cov(PRM's part, A) / Var(A) before whitening, over the estimator's entries; None unless the advantages
    are a sum with a part of the PRM's own."""


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
    shift = _potential_shift(batch, paid)
    estimated = module.estimate(
        AdvantageInputs(
            rewards_BT=paid.total - kl_penalty_BT,
            lengths_B=batch.lengths_B,
            bootstrapped_B=bootstrapped_B,
            outcomes_B=batch.outcomes_B,
            values_BT=old.values_BL.gather(1, batch.starts_BT) - shift.steps_BT,
            values_BL=old.values_BL - shift.tokens_BL,
            end_values_B=_end_values(batch, values_BT1, setting, shift.ends_B),
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
        if returns_BL is not None:
            returns_BL = (returns_BL + shift.tokens_BL).where(has_return_BL, 0.0)
    else:
        advantages_BL = spread_over_tokens(credited, batch.layout)
        returns_BL = has_return_BL = None
        if estimated.returns is not None:
            returns_BT = estimated.returns + shift.steps_BT
            returns_BL = put_on_first_tokens(returns_BT, batch.layout, batch.starts_BT)
            has_return_BL = put_on_first_tokens(estimated.mask.float(), batch.layout, batch.starts_BT) > 0
    return Credit(
        advantages_BL=advantages_BL,
        returns_BL=zeros_BL if returns_BL is None else returns_BL,
        has_return_BL=zeros_BL.bool() if has_return_BL is None or returns_BL is None else has_return_BL,
        rewards=paid,
        kl_penalty_BT=kl_penalty_BT,
        raw_std=stats.std,
        prm_share=None if estimated.prm is None else _share(estimated.prm, estimated),
    )


class _Shift(NamedTuple):
    """What is subtracted from the critic's values: the potential of the state, 0 without one."""

    steps_BT: Tensor
    tokens_BL: Tensor
    ends_B: Tensor
    """After the last step."""


def _potential_shift(batch: Batch, paid: StepRewards) -> _Shift:
    if paid.potential_BT1 is None:
        return _Shift(torch.zeros_like(paid.outcome), torch.zeros(()), torch.zeros(()))
    steps_BT = paid.potential_BT1[:, :-1].where(length_mask(batch.lengths_B, paid.outcome.shape[1]), 0.0)
    ends_B = paid.potential_BT1.gather(1, batch.lengths_B.unsqueeze(1)).squeeze(1)
    return _Shift(steps_BT, spread_over_tokens(steps_BT, batch.layout), ends_B)


def _share(part: Tensor, estimated: Advantages) -> float:
    """Return ``Cov(part, A) / Var(A)``: the shares of parts that add up to A add up to 1."""
    total, part = estimated.advantages[estimated.mask].double(), part[estimated.mask].double()
    variance = float(total.var(correction=0))
    if not variance:
        return 0.0
    return float(((part - part.mean()) * (total - total.mean())).mean()) / variance


def _end_values(
    batch: Batch, values_BT1: Tensor | None, setting: CreditSetting, potential_B: Tensor
) -> Tensor | None:
    """Return the expected return after a truncation, in the reward's terms.

    The PRM's last value stands for it, scaled as the critic's values are, minus the potential there.
    The critic is never read after the last action: the environment's last answer is not among the tokens.
    """
    if not setting.bootstrap_truncations or values_BT1 is None:
        return None
    factor = rewards.critic_factor(setting.reward, setting.reward_kwargs or {})
    if factor is None:
        raise ConfigError(f"the reward {setting.reward} cannot bootstrap truncated episodes")
    last_B = values_BT1.gather(1, batch.lengths_B.unsqueeze(1)).squeeze(1)
    return factor * last_B.clamp(0.0, 1.0) - potential_B
