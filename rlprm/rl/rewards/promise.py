"""Promise: every step is paid the PRM's value after it.

    r_t = c v_t   at every step;   plus r at T

The naive reading of a process reward, kept to show what is wrong with it: a sum of
values that are never negative grows with every further step, so the policy is paid for
staying in promising places and not for finishing. Its optimal policies are not those of
``outcome`` (``tests/rl/test_chain.py`` has the smallest example), and training with it is
known to collapse (arXiv 2504.15275, "sum form"). Watch the number of turns.

The critic has to predict a sum over the remaining steps, which V does not predict: let
the critic learn before the policy moves.
"""

from __future__ import annotations

from typing import Any

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
    v_min: float = 0.0,
    v_max: float = 1.0,
) -> StepRewards:
    """Return the value after each step, and the outcome; see ``RewardModule``.

    Args:
        values_BT1: ``v_0 ... v_T``; ``v_0`` is not used.
        outcomes_B: r.
        lengths_B: number of steps.
        gamma: not used.
        states_BT: not used.
        bootstrapped_B: rows without an end, which get no outcome.
        scale: c, above 0.
        v_min: values are clipped to [v_min, v_max].
        v_max: see ``v_min``.
    """
    scale = check_scale(scale)
    clip = (v_min, v_max)
    values = step_values(values_BT1, outcomes_B, lengths_B, gamma, states_BT, bootstrapped_B, clip)
    return StepRewards(scale * values.after_BT, values.outcome_BT)


def critic_factor(**others: Any) -> None:
    """Return None: the return grows with the number of steps that are left."""
    return
