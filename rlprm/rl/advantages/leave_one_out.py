"""Leave-one-out: an episode's return minus the mean of the others of its task, for all its steps alike.

    G = Σ_t γ^{t-1} r_t,     A_t = G_i - 1/(n-1) Σ_{j ≠ i} G_j

(RLOO: Kool et al. 2019; Ahmadian et al. 2024, arXiv 2402.14740.) The baseline does not
contain the episode itself, so the policy gradient is unbiased; it equals n / (n - 1) times
``group`` without division. No critic, and the same dangers as ``group``. A group of one has
no others: 0.
"""

from __future__ import annotations

from rlprm.rl.advantages.base import (
    AdvantageInputs,
    Advantages,
    Level,
    Whitening,
    against_group,
    check_needs,
)

__all__ = ["CAN_BOOTSTRAP", "LEVEL", "NEEDS", "WHITENING", "estimate"]

NEEDS = frozenset({"groups_B"})
LEVEL: Level = "trajectory"
CAN_BOOTSTRAP = False
WHITENING: Whitening = "scale"


def estimate(inputs: AdvantageInputs, *, gamma: float) -> Advantages:
    """Return the same advantage for all steps of an episode (B, T); see ``AdvantageModule``.

    Args:
        inputs: with ``groups_B``.
        gamma: γ.
    """
    check_needs(inputs, NEEDS, "leave_one_out")
    deviations = against_group(inputs, gamma=gamma)
    others_B = (deviations.size_B - 1).clamp(min=1)
    advantages_B = deviations.deviation_B * deviations.size_B / others_B
    exists_BT = inputs.exists
    return Advantages(advantages_B.unsqueeze(1).where(exists_BT, 0.0), None, exists_BT)
