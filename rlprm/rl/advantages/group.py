"""Group-relative: an episode's return minus the mean of its group, for all its steps alike.

    G = Σ_t γ^{t-1} r_t,     A_t = G - mean of G over the rollouts of the same task

and, with ``divide_by_std``, ``/ (std of the group + 1e-4)``. (GRPO, arXiv 2402.03300; without
the division Dr. GRPO, arXiv 2503.20783, which shows that it overweights tasks that are
almost always or almost never solved.) No critic.

From the paper: the group as baseline. Dropped: its per-episode division by length; sums
over tokens or steps are divided by global counts elsewhere.

Known dangers: no credit inside an episode, every step of a success is a success.
Whatever is a constant of the task cancels, the potential of ``progress`` with it. A group
of one, or of equal returns, has the advantage 0. All episodes of a group must be in one batch.
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

_EPSILON = 1e-4
"""Keeps returns that differ only by rounding from being scaled to a deviation of 1."""


def estimate(inputs: AdvantageInputs, *, gamma: float, divide_by_std: bool = False) -> Advantages:
    """Return the same advantage for all steps of an episode (B, T); see ``AdvantageModule``.

    Args:
        inputs: with ``groups_B``.
        gamma: γ.
        divide_by_std: whether to divide by the standard deviation of the group.
    """
    check_needs(inputs, NEEDS, "group")
    deviations = against_group(inputs, gamma=gamma)
    advantages_B = deviations.deviation_B
    if divide_by_std:
        advantages_B = advantages_B / (deviations.std_B + _EPSILON)
    exists_BT = inputs.exists
    return Advantages(advantages_B.unsqueeze(1).where(exists_BT, 0.0), None, exists_BT)
