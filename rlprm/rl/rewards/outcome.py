"""Outcome: only the environment's judgement at the last step. The control of every study.

    r_t = 0   for t < T,      r_T = r

Its optimal policies are those of the task by definition. No PRM is used.
"""

from __future__ import annotations

from torch import Tensor

from rlprm.functional._checks import check_trajectories, check_unit_interval
from rlprm.rl.rewards.base import StepRewards, outcome_share

__all__ = ["CAN_BOOTSTRAP", "NEEDS_VALUES", "TOTAL_OF", "critic_factor", "step_rewards"]

NEEDS_VALUES = False
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
) -> StepRewards:
    """Return the outcome at the last step; see ``RewardModule``.

    Args:
        values_BT1: not used, but for the width of the batch.
        outcomes_B: r.
        lengths_B: number of steps.
        gamma: not used.
        states_BT: not used.
        bootstrapped_B: rows without an end, which get no outcome.
    """
    check_unit_interval("gamma", gamma)
    width = check_trajectories(values_BT1, outcomes_B, lengths_B)
    outcome_BT = outcome_share(outcomes_B, lengths_B, width, bootstrapped_B)
    return StepRewards(outcome_BT.new_zeros(outcome_BT.shape), outcome_BT)


def critic_factor() -> float:
    """Return 1: the PRM's value is the expected outcome."""
    return 1.0
