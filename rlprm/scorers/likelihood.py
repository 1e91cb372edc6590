"""A baseline without a reward model: the policy's own confidence in each action.

What a policy sampled against its own opinion is often a slip. Where that is what failures are made of,
its probabilities choose well and cost nothing; a reward model is worth its price where it beats them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rlprm.types import StepScores, Trajectory


class Likelihood:
    """Score of a step: the probability that the policy gave its action, in (0, 1].

    The probability of all sampled tokens of the action together, at the temperature they were sampled at.
    Under aggregation ``product`` a trajectory's score is its likelihood, under ``min`` that of its most
    unlikely action.
    """

    def __init__(self) -> None:
        self.name = "likelihood"

    def score(self, trajectories: Sequence[Trajectory]) -> list[StepScores]:
        """Return ``v_t = π(a_t | s_t)``, ``v_0 = 1``, from the log-probabilities stored while sampling."""
        return [StepScores(initial=1.0, values=_probabilities(trajectory)) for trajectory in trajectories]


def _probabilities(trajectory: Trajectory) -> tuple[float, ...]:
    # Tokens that were not sampled (a forced closing token) have log-probability 0.
    return tuple(math.exp(sum(trajectory.logprobs[s.start : s.end + 1])) for s in trajectory.steps)
