"""Behaviour cloning of its own successes: imitate the successful episodes, ignore the others.

    A_t = 1   if the return of the episode is at least ``threshold``,   else 0

The update maximises the likelihood of the steps with A = 1, as supervised fine-tuning of the successful
episodes does, in every pass: no ratio, no clip. (PPO's clip would stop a token as soon as its
probability had grown by a fifth.) This is rejection sampling, one round of which per iteration is RAFT
(arXiv 2304.06767) or expert iteration. The baseline that any RL has to beat at equal environment steps.

What it drops of a policy gradient: failures teach no behaviour, and a lucky bad action in
a successful episode is imitated like a good one. Not whitened: centred, it would push
failures down and be another method.
"""

from __future__ import annotations

import torch

from rlprm.functional._checks import check_number
from rlprm.rl.advantages.base import AdvantageInputs, Advantages, Level, Whitening, episode_returns

__all__ = ["CAN_BOOTSTRAP", "LEVEL", "NEEDS", "OBJECTIVE", "WHITENING", "estimate"]

NEEDS: frozenset[str] = frozenset()
LEVEL: Level = "trajectory"
CAN_BOOTSTRAP = False
WHITENING: Whitening = "none"
OBJECTIVE = "likelihood"


def estimate(inputs: AdvantageInputs, *, gamma: float, threshold: float = 0.5) -> Advantages:
    """Return 1 for all steps of the episodes that are kept (B, T); see ``AdvantageModule``.

    Args:
        inputs: only rewards and lengths are used.
        gamma: γ.
        threshold: the smallest discounted return that is imitated.
    """
    threshold = check_number("threshold", threshold)
    kept_B = (episode_returns(inputs, gamma=gamma) >= threshold).to(torch.float32)
    exists_BT = inputs.exists
    return Advantages(kept_B.unsqueeze(1).where(exists_BT, 0.0), None, exists_BT)
