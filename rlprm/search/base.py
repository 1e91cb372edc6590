"""The result of a search strategy, and how candidates are scored and ranked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol

from rlprm.data.failures import has_failed
from rlprm.errors import ConfigError, DataError
from rlprm.functional.aggregation import aggregate
from rlprm.scorers.base import Scorer
from rlprm.search.record import Node
from rlprm.types import EpisodeSetting, StepScores, StopReason, Task, Trajectory

if TYPE_CHECKING:  # a policy brings a model library with it; records and plots read results without one
    from rlprm.policies.base import Policy

EPISODES = 16
"""Of a strategy that has neither a number of episodes nor a budget."""
UNRANKED = -math.inf
"""Rank score of a trajectory that cannot be scored: a failed episode, or one without an action."""


@dataclass(frozen=True)
class SearchResult:
    """The episode that a strategy chose for one task, and the costs of the search."""

    trajectory: Trajectory
    """The chosen episode; it has stopped."""
    score: float | None
    """The score that it was chosen by; None without a score (greedy decoding, or an episode that failed)."""
    sampled_tokens: int
    """Tokens the policy sampled for this task, those of discarded and merged candidates included."""
    policy_tokens: int
    """Tokens that went through the policy's forward for this task, prompts and observations included, once
    where keys and values are kept; see ``Completion.fed_tokens``. Discarded and merged candidates count."""
    scorer_tokens: int
    """Model tokens the scorer processed for this task."""
    env_steps: int
    """Turns taken for this task, which its budget limits. A message that the action format refuses counts. A
    message that was merged with an equal message does not."""
    nodes: tuple[Node, ...] = ()
    """Every candidate that was scored, or would have been if its episode had not failed."""

    @property
    def distinct_steps(self) -> int:
        """Turns that differ in their action or in an action before: what evaluations count.

        A strategy that samples episodes from the start takes the actions that several of them begin with
        repeatedly. A beam takes equal actions of one state once. Counted like this, both are charged alike. A
        refused message counts as an empty action. Without nodes, the number is ``env_steps``.
        """
        taken: dict[int | None, tuple[str, ...]] = {None: ()}
        distinct: set[tuple[str, ...]] = set()
        for node in self.nodes:
            before = taken[node.parent]
            taken[node.number] = line = before + node.actions
            if node.executed:
                distinct.update(line[:end] for end in range(len(before) + 1, len(line) + 1))
        return len(distinct) if self.nodes else self.env_steps


class SearchModule(Protocol):
    """The function a search module defines.

    A module may name the settings that multiply the candidates of a task that act side by side, in
    ``SIDE_BY_SIDE: tuple[str, ...]``. An evaluation then knows how many tasks fit into one wave.
    """

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
        """Search all tasks together, turn by turn; one result per task, in order.

        The result of a task, costs included, does not depend on the other tasks of the
        call. A caller that is short of memory may therefore pass the tasks in portions.

        Args:
            tasks: at least one.
            policy: acts; its temperature is the sampling temperature of the search.
            scorer: scores candidates; a strategy without candidates does not use it.
            setting: how episodes are run.
            run_seed: with a task's id, determines all its random numbers.
            **search_kwargs: the strategy's settings. All strategies have ``budget``, the most environment
                steps that the search of one task may take; None for the strategy's own end. A search never
                takes more steps. Episodes that are unfinished when no step is left are closed with
                ``StopReason.SEARCH_LIMIT``, which is a truncation.

        Raises:
            ConfigError: for a budget or a temperature that makes no sense.
            DataError: for scores that are missing or not finite.
        """
        ...


def check_budget(budget: int | None) -> None:
    """Refuse a budget that allows no action.

    Raises:
        ConfigError: for a budget below 1.
    """
    if budget is not None and budget < 1:
        raise ConfigError(f"budget: got {budget}, allowed: at least 1 environment step, or no budget")


class EndRank(IntEnum):
    """How an episode ended, from the worst end to the best; a search ranks candidates by it first."""

    FAILED = 0
    TRUNCATED = 1
    TERMINATED = 2


def end_rank(stop: StopReason | None) -> EndRank:
    """Return the rank of the end of an episode.

    Raises:
        DataError: if the episode has not stopped; it is never a result.
    """
    if stop is None:
        raise DataError("an unfinished trajectory cannot be the result of a search")
    if stop is StopReason.ERROR:
        return EndRank.FAILED
    return EndRank.TRUNCATED if stop.is_truncation else EndRank.TERMINATED


def can_be_scored(trajectory: Trajectory) -> bool:
    """Whether a scorer can score the episode: it did not fail, and it has at least one action."""
    return not has_failed(trajectory) and len(trajectory.steps) > 0


def score_all(scorer: Scorer, trajectories: Sequence[Trajectory]) -> list[StepScores | None]:
    """Score trajectories in one call, finished or not.

    Returns:
        One entry per trajectory; None for those that cannot be scored (``can_be_scored``).

    Raises:
        DataError: if the scorer returns too few results, too few values, or a value that is not finite.
    """
    scorable = [trajectory for trajectory in trajectories if can_be_scored(trajectory)]
    results = scorer.score(scorable) if scorable else []
    if len(results) != len(scorable):
        raise DataError(
            f"the scorer {scorer.name} returned {len(results)} results for {len(scorable)} trajectories"
        )
    for trajectory, scores in zip(scorable, results, strict=True):
        _check(scorer.name, trajectory, scores)
    remaining = iter(results)
    return [next(remaining) if can_be_scored(trajectory) else None for trajectory in trajectories]


def rank_score(scores: StepScores | None, aggregation: str) -> float:
    """Return the score that a trajectory is ranked by; ``UNRANKED`` if it could not be scored.

    Raises:
        ConfigError: for an unknown aggregation.
    """
    return UNRANKED if scores is None else aggregate(scores.values, aggregation)


def _check(name: str, trajectory: Trajectory, scores: StepScores) -> None:
    where = f"task {trajectory.task.id!r}, sample {trajectory.sample}"
    values, steps = len(scores.values), len(trajectory.steps)
    if values != steps:
        raise DataError(f"the scorer {name} returned {values} values for {steps} steps ({where})")
    for t, value in enumerate(scores.values, start=1):
        if not math.isfinite(value):
            raise DataError(f"the scorer {name} gave step {t} the score {value} ({where})")
