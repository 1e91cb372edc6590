"""GAE over turns: the turn is the action, a critic predicts the return before each.

    δ_t = r_t + γ V_{t+1} - V_t,     A_t = δ_t + γ λ A_{t+1},     R_t = A_t + V_t

with ``V_{T+1} = 0`` if the episode ended, and the critic's value of the continuation if
its truncation is bootstrapped. λ = 1: the return minus the value; λ = 0: the TD
residual. (Schulman et al. 2016, arXiv 1506.02438. Turn-PPO finds γ = 0.99 and λ = 0.9
best, with a critic that learns 5 to 10 times as fast as the actor.)

No token is a time step: however long a message or an observation is, credit decays by γλ
from turn to turn.
"""

from __future__ import annotations

from rlprm.functional.returns import gae
from rlprm.rl.advantages.base import AdvantageInputs, Advantages, Level, Whitening, check_needs, end_values

__all__ = ["CAN_BOOTSTRAP", "LEVEL", "NEEDS", "WHITENING", "estimate"]

NEEDS = frozenset({"values_BT"})
LEVEL: Level = "step"
CAN_BOOTSTRAP = True
WHITENING: Whitening = "both"


def estimate(inputs: AdvantageInputs, *, gamma: float, lam: float = 0.95) -> Advantages:
    """Return advantages and λ-returns of the steps (B, T); see ``AdvantageModule``.

    Args:
        inputs: with ``values_BT``, and ``end_values_B`` if a row is bootstrapped.
        gamma: γ.
        lam: λ in [0, 1].
    """
    check_needs(inputs, NEEDS, "turn_gae")
    assert inputs.values_BT is not None
    values_BT, rewards_BT = inputs.values_BT.detach(), inputs.rewards_BT.detach()
    ends_B = end_values(inputs, inputs.end_values_B)
    advantages_BT = gae(rewards_BT, values_BT, ends_B, inputs.lengths_B, gamma=gamma, lam=lam)
    exists_BT = inputs.exists
    returns_BT = (advantages_BT + values_BT).where(exists_BT, 0.0)
    return Advantages(advantages_BT, returns_BT, exists_BT)
