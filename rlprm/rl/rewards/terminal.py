"""Terminal: the PRM's value of the last action, at the last step only.

    r_T = c v_T   (plus r, or instead of it);   0 before

The other reading of the paper: partial credit for a failure that came close, and a
reward if the environment has none (``with_outcome`` false). No step on the way can be farmed,
but credit is as sparse as the outcome's.

What it drops: this is no shaping. A policy is rewarded for ending in states that the PRM overrates;
without the outcome no signal corrects it.

A bootstrapped episode has no end and gets no reward.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlprm.rl.rewards.base import StepRewards, check_scale, step_values

__all__ = ["CAN_BOOTSTRAP", "NEEDS_VALUES", "TOTAL_OF", "critic_factor", "step_rewards"]

NEEDS_VALUES = True
CAN_BOOTSTRAP = True
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
    with_outcome: bool = True,
    v_min: float = 0.0,
    v_max: float = 1.0,
) -> StepRewards:
    """Return the last value at the last step, and the outcome if ``with_outcome``; see ``RewardModule``.

    Args:
        values_BT1: ``v_0 ... v_T``; only ``v_T`` is used.
        outcomes_B: r.
        lengths_B: number of steps.
        gamma: not used.
        states_BT: not used.
        bootstrapped_B: rows without an end, which get no reward.
        scale: c, above 0.
        with_outcome: whether the outcome counts beside the PRM's value.
        v_min: values are clipped to [v_min, v_max].
        v_max: see ``v_min``.
    """
    scale = check_scale(scale)
    clip = (v_min, v_max)
    values = step_values(values_BT1, outcomes_B, lengths_B, gamma, states_BT, bootstrapped_B, clip)
    prm_BT = scale * values.after_BT.where(values.ends_BT, 0.0)
    return StepRewards(prm_BT, values.outcome_BT if with_outcome else torch.zeros_like(prm_BT))


def critic_factor(*, scale: float = 1.0, with_outcome: bool = True, **others: Any) -> float:
    """Return c, plus 1 with the outcome: a PRM that is right about the end has ``E[v_T] = V``."""
    return scale + (1.0 if with_outcome else 0.0)
