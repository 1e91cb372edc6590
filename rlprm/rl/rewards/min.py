"""Min: the worst step of an episode is paid for, the others hardly at all (PURE, arXiv 2504.15275).

    w_t = exp(-v_t / τ) / Σ_k exp(-v_k / τ)        over the steps k = 1 ... T of the episode
    r_t = c w_t (v_t - m)                          plus r at T

What the return is: the undiscounted sum of the PRM's share is ``c (Σ_t w_t v_t - m)``, a
weighted mean of the values that lies between their minimum and their plain mean. It
approaches ``c (min_t v_t - m)`` as τ → 0; for τ → ∞ it is the mean. It does not grow with
the number of steps: steps that are all alike are paid as one. From step t on it
approaches ``c (min_k v_k - m)`` as long as the worst step is still to come, and 0 afterwards.

From the paper: the weighting, in the units of its released code, which scores a step by
P(right) - P(wrong) = ``2 v - 1`` with τ = 0.1; on v that is m = ½, τ = 0.05 (and c = 2), the
defaults here but for c. Decided here: m is a setting, because the sign of ``v - m`` matters.
A step that becomes the new worst one receives the reward; if ``v - m`` is positive, an
estimator that sums future rewards *rewards* that step for being bad (with m = 0 always).
With m = 1 it never does; m = ½ punishes steps after which failure is the likelier end.

Known dangers: what a step is paid depends on the steps after it, so this is no reward of
a state and an action, no shaping, and nothing keeps its optimal policies those of
``outcome``. It cannot be bootstrapped: the worst step may be among those unseen. More
steps mean more chances of a bad one: caution is favoured, and a short episode with it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlprm.errors import ConfigError
from rlprm.functional._checks import check_number
from rlprm.rl.rewards.base import StepRewards, check_scale, step_values

__all__ = ["CAN_BOOTSTRAP", "NEEDS_VALUES", "TOTAL_OF", "critic_factor", "step_rewards"]

NEEDS_VALUES = True
CAN_BOOTSTRAP = False
TOTAL_OF = None


def step_rewards(
    values_BT1: Tensor | None,
    outcomes_B: Tensor,
    lengths_B: Tensor,
    *,
    gamma: float,
    states_BT: Tensor | None = None,
    bootstrapped_B: Tensor | None = None,
    scale: float = 1.0,
    temperature: float = 0.05,
    midpoint: float = 0.5,
    v_min: float = 0.0,
    v_max: float = 1.0,
) -> StepRewards:
    """Return the values, weighted towards the lowest, and the outcome; see ``RewardModule``.

    Args:
        values_BT1: ``v_0 ... v_T``; ``v_0`` is not used.
        outcomes_B: r.
        lengths_B: number of steps.
        gamma: not used; the sum above is undiscounted.
        states_BT: not used.
        bootstrapped_B: refused if it marks a row.
        scale: c, above 0.
        temperature: τ, in the units of v, above 0.
        midpoint: m, the value with reward 0.
        v_min: values are clipped to [v_min, v_max].
        v_max: see ``v_min``.
    """
    scale = check_scale(scale)
    temperature = check_number("temperature", temperature, above=0.0)
    midpoint = check_number("midpoint", midpoint)
    if bootstrapped_B is not None and bootstrapped_B.any():
        raise ConfigError("min cannot be bootstrapped: the worst step may be among those that were cut off")
    clip = (v_min, v_max)
    values = step_values(values_BT1, outcomes_B, lengths_B, gamma, states_BT, bootstrapped_B, clip)
    logits_BT = (-values.after_BT / temperature).masked_fill(~values.exists_BT, -torch.inf)
    weights_BT = torch.softmax(logits_BT, dim=1)
    prm_BT = scale * weights_BT * (values.after_BT - midpoint)
    # Without steps the softmax is NaN; such a row gets no reward.
    return StepRewards(prm_BT.where(values.exists_BT, 0.0), values.outcome_BT)


def critic_factor(**others: Any) -> None:
    """Return None: the expected minimum of what is to come is no multiple of V."""
    return
