"""A baseline without a reward model: the policy's own confidence in each action.

What a policy sampled against its own opinion is often a slip. Where that is what failures are made of,
its probabilities choose well and cost nothing; a reward model is worth its price where it beats them, or
adds to them (:mod:`rlprm.scorers.with_confidence`).

The likelihood here is the policy's stored confidence (:mod:`rlprm.data.confidence`), not the reward model's
head of that name (:mod:`rlprm.models.lm_head`).
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
    """Score of a step: the probability that the policy gave its action, in (0, 1].

    Under aggregation ``product`` a trajectory's score is its likelihood, under ``min`` that of its most
    unlikely action.

    Args:
        per: ``action`` or ``token``, see :func:`rlprm.data.confidence.check_per`.

    Raises:
        ConfigError: for anything else.
    """

    def __init__(self, per: str = "action") -> None:
        self.name = "policy_confidence"
        self.per = check_per(per)

    def score(self, trajectories: Sequence[Trajectory]) -> list[StepScores]:
        """Return ``v_t = π(a_t | s_t)``, ``v_0 = 1``."""
        return [StepScores(initial=1.0, values=action_probabilities(t, self.per)) for t in trajectories]
