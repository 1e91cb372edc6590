"""Progress that keeps its last difference: the PRM's final judgement counts beside the outcome.

    r_t = c (γ v_t - v_{t-1})   for every t, the last one included;   plus r at T

If states are read too, ``c (γ x_{t+1} - x_t)`` for t < T and ``c (γ v_T - x_T)`` at T.
Its discounted sum over an episode is ``γ^{T-1} (r + c γ v_T) - c v_0``: with a PRM that
tells success from failure, the outcome counts about 1 + c times.

What it drops: the potential after the end is ``v_T`` instead of 0, so this is no
potential-based shaping, and its optimal policies need not be those of ``outcome``. A
policy can be rewarded for ending in states that the PRM overrates.

Known dangers: that one; and compared by whole episodes (a group of rollouts of one
task) it equals ``terminal`` beside the outcome, since all other terms cancel.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rlprm.rl.rewards.base import StepRewards, check_scale, step_values

__all__ = ["CAN_BOOTSTRAP", "NEEDS_VALUES", "TOTAL_OF", "critic_factor", "step_rewards"]

NEEDS_VALUES = True
CAN_BOOTSTRAP = True
TOTAL_OF = "terminal"


def step_rewards(
    values_BT1: Tensor | None,
    outcomes_B: Tensor,
    lengths_B: Tensor,
    *,
    gamma: float,
    states_BT: Tensor | None = None,
    bootstrapped_B: Tensor | None = None,
    scale: float = 1.0,
    v_min: float = 0.0,
    v_max: float = 1.0,
) -> StepRewards:
    """Return the rise of the value at every step, the last included, and the outcome; see ``RewardModule``.

    Args:
        values_BT1: ``v_0 ... v_T``.
        outcomes_B: r.
        lengths_B: number of steps.
        gamma: γ.
        states_BT: ``x_1 ... x_T`` or None.
        bootstrapped_B: rows without an end; as with ``progress``, which is the same there.
        scale: c, above 0.
        v_min: values are clipped to [v_min, v_max] before differences are taken.
        v_max: see ``v_min``.
    """
    scale = check_scale(scale)
    clip = (v_min, v_max)
    values = step_values(values_BT1, outcomes_B, lengths_B, gamma, states_BT, bootstrapped_B, clip)
    return StepRewards(scale * (gamma * values.next_BT - values.before_BT), values.outcome_BT)


def critic_factor(**others: Any) -> float:
    """Return 1: ``V + c E[v_T] - c V``, and a PRM that is right about the end has ``E[v_T] = V``."""
    return 1.0
