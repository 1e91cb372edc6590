"""The outcome's GAE plus the PRM's progress: a dense signal that the critic cannot cancel.

    A_t = Â_t + α p_t,     p_t = v_t - x_t  for t < T,     p_T = r - x_T

``Â`` is ``turn_gae`` of the outcome with the run's γ and λ. Its critic starts as the PRM and learns
``Â + V``, never ``α p``. ``x_t`` is the PRM's value of the state that action t was taken in. If the PRM
reads no states, ``v_{t-1}`` stands for it. The outcome r is known at the end and takes the place of the PRM's
opinion of it. A bootstrapped truncation keeps that opinion: ``p_T = v_T - x_T``.

The progress reward cannot do this. Under ``progress`` the critic learns the PRM's potential, and the
PRM leaves the advantages. Here the PRM's part stays what it is, and ``credit/prm_share`` says how much
of the advantages' variance it is. Â spreads over about 0.4 and p over a tenth of that or less,
so α is chosen on dev tasks from 1, 3 and 10. Both parts are whitened together.

Process advantage verifiers add the same kind of term to the outcome (arXiv 2410.08146), there the progress
under another policy. Here it is AgentPRM's progress (arXiv 2511.08325).

Known dangers. The sum is not policy-invariant: the policy follows the PRM greedily, one step ahead. The
reward ``progress`` refuses ``v_t - x_t``, because its sum over a loop is above 0 wherever ``v_t`` exceeds the
mean of ``x_{t+1}``, and a policy can go round that loop for ever. As a part of an advantage it is credited
to its own step alone and never added up over an episode, so a loop earns the step that led there nothing. But
each step of the loop is still pushed up by what the PRM wrongly sees in it. The alarm of ``rlprm train-rl``
watches for that; refresh the PRM as the policy drifts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlprm.functional._checks import check_number, check_shape, check_values
from rlprm.functional.masking import length_mask
from rlprm.functional.returns import gae
from rlprm.rl.advantages.base import AdvantageInputs, Advantages, Level, Whitening, check_needs, end_values

__all__ = ["CAN_BOOTSTRAP", "LEVEL", "NEEDS", "WHITENING", "estimate", "steps_progress"]

NEEDS = frozenset({"values_BT", "prm_values_BT1", "outcomes_B"})
LEVEL: Level = "step"
CAN_BOOTSTRAP = True
WHITENING: Whitening = "both"


def estimate(
    inputs: AdvantageInputs,
    *,
    gamma: float,
    lam: float = 0.95,
    alpha: float = 3.0,
    v_min: float = 0.0,
    v_max: float = 1.0,
) -> Advantages:
    """Return the advantages of the steps and the outcome's λ-returns (B, T); see ``AdvantageModule``.

    Args:
        inputs: with ``values_BT``, ``prm_values_BT1`` and ``outcomes_B``; ``prm_states_BT`` if states are
            read; ``end_values_B`` if a row is bootstrapped. The rewards must not contain the PRM's values.
        gamma: γ of the outcome's part.
        lam: λ of the outcome's part, in [0, 1].
        alpha: weight of the PRM's part, above 0.
        v_min: the PRM's values are clipped to [v_min, v_max] before differences are taken.
        v_max: see ``v_min``.
    """
    check_needs(inputs, NEEDS, "outcome_plus_progress")
    alpha = check_number("alpha", alpha, above=0.0)
    assert inputs.values_BT is not None
    values_BT, rewards_BT = inputs.values_BT.detach(), inputs.rewards_BT.detach()
    ends_B = end_values(inputs, inputs.end_values_B)
    outcome_BT = gae(rewards_BT, values_BT, ends_B, inputs.lengths_B, gamma=gamma, lam=lam)
    prm_BT = alpha * steps_progress(inputs, v_min=v_min, v_max=v_max)
    exists_BT = inputs.exists
    returns_BT = (outcome_BT + values_BT).where(exists_BT, 0.0)
    return Advantages(outcome_BT + prm_BT, returns_BT, exists_BT, prm_BT)


def steps_progress(inputs: AdvantageInputs, *, v_min: float, v_max: float) -> Tensor:
    """Return ``p_t`` (B, T): the progress of each step, at the end measured by the outcome."""
    assert inputs.prm_values_BT1 is not None
    assert inputs.outcomes_B is not None
    v_min = check_number("v_min", v_min)
    v_max = check_number("v_max", v_max, above=v_min)
    rows, width = inputs.rewards_BT.shape
    check_shape("prm_values_BT1", inputs.prm_values_BT1, (rows, width + 1))
    check_shape("outcomes_B", inputs.outcomes_B, (rows,))
    check_values(inputs.prm_values_BT1, length_mask(inputs.lengths_B + 1, width + 1), "v", 0)
    values_BT1 = inputs.prm_values_BT1.detach().clamp(v_min, v_max)
    before_BT = values_BT1[:, :-1]
    if inputs.prm_states_BT is not None:
        check_shape("prm_states_BT", inputs.prm_states_BT, (rows, width))
        check_values(inputs.prm_states_BT, inputs.exists, "x", 1)
        before_BT = inputs.prm_states_BT.detach().clamp(v_min, v_max).to(values_BT1.dtype)
    is_end_BT = torch.arange(width, device=inputs.lengths_B.device) == (inputs.lengths_B - 1).unsqueeze(1)
    if inputs.bootstrapped_B is not None:
        is_end_BT &= ~inputs.bootstrapped_B.unsqueeze(1)
    outcomes_B1 = inputs.outcomes_B.detach().to(values_BT1.dtype).unsqueeze(1)
    return (torch.where(is_end_BT, outcomes_B1, values_BT1[:, 1:]) - before_BT).where(inputs.exists, 0.0)
