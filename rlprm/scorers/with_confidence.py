"""The values of a reward model, weighted by the policy's probabilities of its actions.

A reward model and the policy make different errors. In the comparisons of docs/results.md, best-of-N
by the product is better than by a scalar reward model, at the same cost. The ``lm`` head
(:mod:`rlprm.models.heads.lm_head`) contains such probabilities already.

The probabilities are those stored with the trajectory (:mod:`rlprm.data.confidence`).
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
        scorer: its values are predicted outcomes; higher is better, and 0 is the worst.
        per: ``action`` or ``token``, see :func:`rlprm.data.confidence.check_per`.

    Raises:
        ConfigError: if ``per`` is neither.
    """

    def __init__(self, scorer: Scorer, per: str = "action") -> None:
        self.scorer = scorer
        self.per = check_per(per)
        self.name = f"{scorer.name}_x_policy"

    def score(self, trajectories: Sequence[Trajectory]) -> list[StepScores]:
        """Score with the other scorer, and weight the values; see :class:`rlprm.scorers.base.Scorer`."""
        return [self.weigh(s, t) for s, t in zip(self.scorer.score(trajectories), trajectories, strict=True)]

    def searching(self) -> AbstractContextManager[None]:
        """Begin a search with the other scorer; see :class:`rlprm.scorers.base.SearchingScorer`."""
        return searching(self.scorer)

    def weigh(self, scores: StepScores, trajectory: Trajectory) -> StepScores:
        """Weight the scores of the other scorer."""
        sums = accumulate(action_probabilities(trajectory, self.per))
        values = tuple(
            max(value, 0.0) * total / t
            for t, (value, total) in enumerate(zip(scores.values, sums, strict=True), 1)
        )
        return StepScores(max(scores.initial, 0.0), values, scores.tokens)
