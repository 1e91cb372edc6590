"""A baseline without a reward model: the policy's own probability of each action.

A policy samples some actions that it gives a low probability. If most failures come from such actions,
the most probable candidate is already a strong baseline, and it is free. A reward model is worth its cost
only if it does better, alone or together with this score (:mod:`rlprm.scorers.with_confidence`).

The probabilities are those stored with the trajectory (:mod:`rlprm.data.confidence`).
"""

from __future__ import annotations

from collections.abc import Sequence

from rlprm.data.confidence import action_probabilities, check_per
from rlprm.types import StepScores, Trajectory

__all__ = ["PolicyConfidence", "build"]


def build(name: str, *, per: str = "action") -> PolicyConfidence:
    """Build the scorer; see :class:`rlprm.scorers.base.ScorerModule`."""
    scorer = PolicyConfidence(per)
    scorer.name = name
    return scorer


class PolicyConfidence:
    """Score of a step: the probability that the policy gave to its action, in (0, 1].

    With the aggregation ``product``, the score of a trajectory is the probability of all its actions. With
    ``min``, it is the probability of its least probable action.

    Args:
        per: ``action`` or ``token``, see :func:`rlprm.data.confidence.check_per`.

    Raises:
        ConfigError: if ``per`` is neither.
    """

    def __init__(self, per: str = "action") -> None:
        self.name = "policy_confidence"
        self.per = check_per(per)

    def score(self, trajectories: Sequence[Trajectory]) -> list[StepScores]:
        """Return ``v_t = π(a_t | s_t)``, ``v_0 = 1``."""
        return [StepScores(initial=1.0, values=action_probabilities(t, self.per)) for t in trajectories]
