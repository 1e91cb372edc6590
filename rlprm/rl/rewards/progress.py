"""Progress: potential-based shaping by the PRM's value; the default.

    r_t = c (γ Φ_{t+1} - Φ_t),   Φ = value of the state,   Φ(after the end) = 0,   plus r at T

(Ng, Harada and Russell 1999.) Step t acts in a state whose value the PRM reads after the
previous action, ``Φ_t = v_{t-1}`` (values read at actions), or right before the action,
``Φ_t = x_t`` (states read too). Hence

    r_t = c (γ v_t - v_{t-1})      for t < T          or   c (γ x_{t+1} - x_t)
    r_T = r - c v_{T-1}                               or   r - c x_T

What it keeps: the discounted sum over an episode is that of ``outcome`` minus ``c v_0``,
whatever the PRM predicts; every policy has the same advantages as under ``outcome``, and
the same policies are optimal. A loop that returns to its state earns 0
(γ = 1) or loses (γ < 1).

If the chain has states, ``c (v_t - x_t)`` would have less variance, since it leaves
out what the observation happened to reveal. It is *not* offered: it is a difference of
potentials only if ``v_t = E[x_{t+1}]`` exactly, and a policy can farm every state in which the PRM
violates that.

A bootstrapped truncation keeps its potential: ``r_T = c (γ v_T - v_{T-1})`` (``x_{T+1}`` is
never read, and ``v_T`` predicts it), and the critic's value that follows is then one
of *shaped* returns, ``V - c v_T``.

**With a critic it is ``outcome``.** GAE of ``progress`` under a critic U equals GAE of ``outcome`` under the
critic ``W = U + c Φ``, with the same γ and any λ (Wiewiora 2003, arXiv 1106.5267). The critic here predicts
W, the outcome, and ``rlprm.rl.credit`` subtracts ``c Φ``. So a refresh of the PRM leaves the critic right,
and what the PRM gives to the advantages is the critic's start, no more. For a PRM that
counts to the end, see the advantage ``outcome_plus_progress``.

Known dangers: compared by whole episodes (a group of rollouts of one task) it equals
``outcome``, since ``c v_0`` is a constant of the task. Clipping or centring the rewards one by
one, or another γ in the estimator, breaks all of the above.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlprm.rl.rewards.base import StepRewards, check_scale, step_values

__all__ = ["CAN_BOOTSTRAP", "NEEDS_VALUES", "TOTAL_OF", "critic_factor", "step_rewards"]

NEEDS_VALUES = True
CAN_BOOTSTRAP = True
TOTAL_OF = "outcome"


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
    """Return the rise of the potential at each step, and the outcome; see ``RewardModule``.

    Args:
        values_BT1: ``v_0 ... v_T``.
        outcomes_B: r.
        lengths_B: number of steps.
        gamma: γ.
        states_BT: ``x_1 ... x_T`` or None.
        bootstrapped_B: rows without an end.
        scale: c, above 0.
        v_min: values are clipped to [v_min, v_max] before differences are taken.
        v_max: see ``v_min``.
    """
    scale = check_scale(scale)
    clip = (v_min, v_max)
    values = step_values(values_BT1, outcomes_B, lengths_B, gamma, states_BT, bootstrapped_B, clip)
    after_BT = scale * values.next_BT.where(~values.ends_BT, 0.0)
    before_BT = scale * values.before_BT
    # Entry t of the potential stands before step t + 1, and entry T behind the last step.
    first_BT1 = torch.cat([before_BT, torch.zeros_like(before_BT[:, :1])], dim=1)
    last_BT1 = torch.cat([torch.zeros_like(after_BT[:, :1]), after_BT], dim=1)
    is_end_BT1 = torch.arange(first_BT1.shape[1], device=lengths_B.device) == lengths_B.unsqueeze(1)
    potential_BT1 = torch.where(is_end_BT1, last_BT1, first_BT1)
    return StepRewards(gamma * after_BT - before_BT, values.outcome_BT, potential_BT1)


def critic_factor(**others: Any) -> float:
    """Return 1: the critic predicts the outcome, and the potential is subtracted from what it says."""
    return 1.0
