"""A reward model's values, weighed by how sure the policy was of its actions.

A reward model knows what it was taught to see; what it overlooks is often something the policy itself
would hardly have done. The two err in different ways: by their product, best-of-N and beam search were
better than by a scalar reward model alone wherever it was measured (docs/results.md), at the same price. A
lm head holds such probabilities itself.

The likelihood in this scorer's name, ``agentprm_x_policy``, is the policy's stored confidence
(:mod:`rlprm.data.confidence`), not the reward model's head (:mod:`rlprm.models.lm_head`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import accumulate

from rlprm.data.confidence import action_probabilities, check_per
from rlprm.scorers.base import Scorer, searching
from rlprm.types import StepScores, Trajectory

__all__ = ["WithConfidence"]


class WithConfidence:
    """Score of step t: ``max(v_t, 0) · mean of π(a_k | s_k) over k = 1 ... t``.

    Args:
        scorer: whose values are predicted outcomes: higher is better, 0 is the worst.
        per: ``action`` or ``token``, see :func:`rlprm.data.confidence.check_per`.

    Raises:
        ConfigError: for another ``per``.
    """

    def __init__(self, scorer: Scorer, per: str = "action") -> None:
        self.scorer = scorer
        self.per = check_per(per)
        self.name = f"{scorer.name}_x_policy"

    def score(self, trajectories: Sequence[Trajectory]) -> list[StepScores]:
        """Score with the other scorer, and weigh; see :class:`rlprm.scorers.base.Scorer`."""
        return [self.weigh(s, t) for s, t in zip(self.scorer.score(trajectories), trajectories, strict=True)]

    def searching(self) -> AbstractContextManager[None]:
        """Tell the other scorer; see :class:`rlprm.scorers.base.SearchingScorer`."""
        return searching(self.scorer)

    def weigh(self, scores: StepScores, trajectory: Trajectory) -> StepScores:
        """Weigh scores that the other scorer gave."""
        sums = accumulate(action_probabilities(trajectory, self.per))
        values = tuple(
            max(value, 0.0) * total / t
            for t, (value, total) in enumerate(zip(scores.values, sums, strict=True), 1)
        )
        return StepScores(max(scores.initial, 0.0), values, scores.tokens)
