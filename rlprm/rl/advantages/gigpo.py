"""GiGPO: an episode against its group, and each step against the steps taken from the same observation.

    A_t = (G - mean of G over the group) + ω (R_t - mean of R over the anchor)

``G = Σ_t γ^{t-1} r_t`` is the return of the episode, ``R_t = Σ_{k≥t} γ^{k-t} r_k`` the return from step t on.
The group are the rollouts of one task. The anchor of step t are all steps of the group that were
taken after the same observation, those of the same episode included. With ``divide_by_std``
both differences are divided by the standard deviation of their group (+ 1e-4). No critic.
(Feng et al. 2025, arXiv 2505.10978, with ω = 1; ω = 0 is ``group``.)

From the paper: both levels and the weight. Dropped: the division by an episode's length.

Known dangers: two states are taken for one if their last observations read alike, whatever
came before. A step whose observation no other step had gets the episode's credit alone.
With γ = 1 and a reward at the end, actions from one anchor are told apart by the outcomes of their episodes
only; γ below 1 also prefers the shorter way to success (0.95 in the paper).
"""

from __future__ import annotations

import torch

from rlprm.errors import ConfigError
from rlprm.functional._checks import check_number, check_shape
from rlprm.functional.groups import group_deviations
from rlprm.functional.returns import discounted_suffix_sums
from rlprm.rl.advantages.base import (
    AdvantageInputs,
    Advantages,
    Level,
    Whitening,
    against_group,
    check_needs,
)

__all__ = ["CAN_BOOTSTRAP", "LEVEL", "NEEDS", "WHITENING", "estimate"]

NEEDS = frozenset({"groups_B", "anchors_BT"})
LEVEL: Level = "step"
CAN_BOOTSTRAP = False
WHITENING: Whitening = "scale"

_EPSILON = 1e-4
"""Keeps returns that differ only by rounding from being scaled to a deviation of 1."""


def estimate(
    inputs: AdvantageInputs, *, gamma: float, step_weight: float = 1.0, divide_by_std: bool = False
) -> Advantages:
    """Return the advantages of the steps (B, T); see ``AdvantageModule``.

    Args:
        inputs: with ``groups_B`` and ``anchors_BT``.
        gamma: γ.
        step_weight: ω, 0 or above.
        divide_by_std: whether to divide by the standard deviations of the group and of the anchor.
    """
    check_needs(inputs, NEEDS, "gigpo")
    assert inputs.anchors_BT is not None
    if check_number("step_weight", step_weight) < 0:
        raise ConfigError(f"step_weight must be 0 or more, got {step_weight!r}")
    check_shape("anchors_BT", inputs.anchors_BT, tuple(inputs.rewards_BT.shape))
    episodes = against_group(inputs, gamma=gamma)
    exists_BT = inputs.exists
    rewards_BT = inputs.rewards_BT.detach()
    rewards_BT = rewards_BT.to(torch.promote_types(rewards_BT.dtype, torch.float32)).where(exists_BT, 0.0)
    returns_BT = discounted_suffix_sums(rewards_BT, gamma)
    steps = group_deviations(returns_BT.flatten(), inputs.anchors_BT.flatten(), exists_BT.flatten())
    of_episode_B, of_step_BT = episodes.deviation_B, steps.deviation_B.view_as(returns_BT)
    if divide_by_std:
        of_episode_B = of_episode_B / (episodes.std_B + _EPSILON)
        of_step_BT = of_step_BT / (steps.std_B.view_as(returns_BT) + _EPSILON)
    advantages_BT = of_episode_B.unsqueeze(1) + step_weight * of_step_BT
    return Advantages(advantages_BT.where(exists_BT, 0.0), None, exists_BT)
