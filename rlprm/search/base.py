"""What every search strategy returns, and how candidates are scored and ranked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from rlprm.data.failures import has_failed
from rlprm.errors import DataError
from rlprm.functional.aggregation import aggregate
from rlprm.scorers.base import Scorer
from rlprm.types import EpisodeSetting, StepScores, StopReason, Task, Trajectory

if TYPE_CHECKING:  # a policy brings a model library with it; records and plots read results without one
    from rlprm.policies.base import Policy

UNRANKED = -math.inf
"""Rank score of what cannot be scored, a failed episode or one without an action: below every score."""


@dataclass(frozen=True)
class SearchResult:
    """What a strategy returns for one task, and what it cost."""

    trajectory: Trajectory
    """The chosen episode; it has stopped."""
    score: float | None
    """What it was chosen by; None where nothing scored it (greedy decoding, or an episode that failed)."""
    policy_tokens: int
    """Tokens the policy sampled for this task, those of discarded and merged candidates included."""
    scorer_tokens: int
    """Model tokens the scorer processed for this task."""
    env_steps: int
    """Turns taken for this task. A message that the action format refuses is one, too; one that was merged
    with an equal one is not."""


class SearchModule(Protocol):
    """The function a search module defines."""

    def search(
        self,
        tasks: Sequence[Task],
        policy: Policy,
        scorer: Scorer,
        setting: EpisodeSetting,
        *,
        run_seed: int = 0,
        **search_kwargs: Any,
    ) -> list[SearchResult]:
        """Search every task, all of them in step; one result per task, in order.

        A task's result, its costs included, does not depend on the tasks beside it, so
        that a caller short of memory may pass them in portions.

        Args:
            tasks: at least one.
            policy: acts; its temperature is the sampling temperature of the search.
            scorer: scores candidates; a strategy that chooses nothing leaves it alone.
            setting: how episodes are run.
            run_seed: with a task's id, determines all its random numbers.
            **search_kwargs: the strategy's budgets.

        Raises:
            ConfigError: for a budget or a temperature that makes no sense.
            DataError: for scores that are missing or not finite.
        """
        ...


def standing(stop: StopReason | None) -> int:
    """Return 2 for an episode that terminated, 1 for one that was cut off, 0 for one that failed.

    Raises:
        DataError: for an episode that has not stopped; it is never a result.
    """
    if stop is None:
        raise DataError("an unfinished trajectory cannot be the result of a search")
    if stop is StopReason.ERROR:
        return 0
    return 1 if stop.is_truncation else 2


def can_be_scored(trajectory: Trajectory) -> bool:
    """Whether a scorer can be asked: the episode did not fail and has at least one action."""
    return not has_failed(trajectory) and len(trajectory.steps) > 0


def score_all(scorer: Scorer, trajectories: Sequence[Trajectory]) -> list[StepScores | None]:
    """Score trajectories in one call, finished or not.

    Returns:
        One entry per trajectory; None for those that cannot be scored (``can_be_scored``).

    Raises:
        DataError: where the scorer returns too few results, too few values, or one that is not finite.
    """
    asked = [trajectory for trajectory in trajectories if can_be_scored(trajectory)]
    answers = scorer.score(asked) if asked else []
    if len(answers) != len(asked):
        raise DataError(
            f"the scorer {scorer.name} returned {len(answers)} results for {len(asked)} trajectories"
        )
    for trajectory, scores in zip(asked, answers, strict=True):
        _check(scorer.name, trajectory, scores)
    remaining = iter(answers)
    return [next(remaining) if can_be_scored(trajectory) else None for trajectory in trajectories]


def rank_score(scores: StepScores | None, aggregation: str) -> float:
    """Return what a trajectory is ranked by; ``UNRANKED`` where it could not be scored.

    Raises:
        ConfigError: for an unknown aggregation.
    """
    return UNRANKED if scores is None else aggregate(scores.values, aggregation)


def _check(name: str, trajectory: Trajectory, scores: StepScores) -> None:
    where = f"task {trajectory.task.id!r}, sample {trajectory.sample}"
    given, wanted = len(scores.values), len(trajectory.steps)
    if given != wanted:
        raise DataError(f"the scorer {name} returned {given} values for {wanted} steps ({where})")
    for t, value in enumerate(scores.values, start=1):
        if not math.isfinite(value):
            raise DataError(f"the scorer {name} gave step {t} the score {value} ({where})")
