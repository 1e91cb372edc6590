"""One row of a results table, with the success of every task for paired comparisons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rlprm.data.failures import report_failures
from rlprm.errors import DataError, MismatchError
from rlprm.functional.statistics.bootstrap import Interval, mean_interval, paired_interval
from rlprm.search.base import SearchResult
from rlprm.types import End

GREEDY, SAMPLE_MEAN, MAJORITY, BEST_OF_N = "greedy", "sample_mean", "majority", "best_of_n"
UNTIL_ACCEPTED, BEAM, SEARCH, ORACLE = "until_accepted", "beam", "search", "oracle"


@dataclass(frozen=True)
class EvaluationRecord:
    """How one strategy did with one budget. Rates are means over tasks, costs means per task."""

    strategy: str
    """``greedy``, ``sample_mean``, ``majority``, ``best_of_n``, ``until_accepted``, ``beam``, ``search`` or
    ``oracle``."""
    scorer: str | None
    """None if no scorer was used."""
    aggregation: str | None
    """Rule from step scores to a trajectory score; None where none was used."""
    n: int
    """Candidates (the most, of ``until_accepted``), or partial trajectories a beam keeps."""
    m: int
    """Actions a beam samples for each; 1 for all else."""
    end: str
    """Who ended the episodes; see ``End``."""
    success_rate: float
    ci_low: float
    """Lower end of the 95 % bootstrap interval of ``success_rate`` over tasks."""
    ci_high: float
    mean_score: float
    """The environment's own score in [0, 1]."""
    policy_tokens: float
    """Tokens through the policy's forward, prompts and observations included; see ``SearchResult``."""
    sampled_tokens: float
    """Tokens the policy sampled."""
    prm_tokens: float
    """Model tokens the scorer processed."""
    env_steps: float
    """Turns taken that differ in their action or in an action before; a message that the action format
    refuses is one, too. What several candidates or episodes of a search begin with counts once."""
    tasks: int
    """Number of tasks."""
    failed: int
    """Episodes that an environment let down; they count as not solved."""
    search: str | None = None
    """Name of the search, if ``strategy`` is ``search``."""
    episodes: float | None = None
    """Episodes that ``until_accepted`` samples; None for all else."""

    @property
    def label(self) -> str:
        """Name of the strategy in tables and plots, whatever the budget: ``best of N, agentprm``."""
        return self._named("N")

    @property
    def name(self) -> str:
        """Name with the budget: ``best of 16, agentprm``."""
        return self._named(str(self.n))

    def _named(self, n: str) -> str:
        names = {
            GREEDY: "greedy",
            SAMPLE_MEAN: "one sample",
            MAJORITY: f"majority of {n}",
            BEST_OF_N: f"best of {n}, {self.scorer}",
            UNTIL_ACCEPTED: f"until {self.scorer}, at most {n}",
            BEAM: f"beam {n}×{self.m}, {self.scorer}",
            SEARCH: f"{self.search}, {self.scorer}",
            ORACLE: f"oracle (pass@{n})",
        }
        return names.get(self.strategy, f"{self.strategy} {n}, {self.scorer}")

    @property
    def is_search(self) -> bool:
        """Whether the record is of a search, a beam or another."""
        return self.strategy in (BEAM, SEARCH)

    @property
    def total_tokens(self) -> float:
        """Tokens per task through policy and scorer: the compute of the paper's comparison."""
        return self.policy_tokens + self.prm_tokens


class Costs(NamedTuple):
    """Mean costs per task."""

    policy_tokens: float
    sampled_tokens: float
    prm_tokens: float
    env_steps: float


@dataclass(frozen=True)
class Measurement:
    """A record with the successes it is the mean of."""

    record: EvaluationRecord
    successes: Mapping[str, float]
    """Task id → (expected) success; what pairs two measurements."""


@dataclass(frozen=True)
class Comparison:
    """Success rate of ``a`` minus that of ``b`` on the same tasks, with its paired 95 % interval."""

    a: str
    b: str
    difference: float
    ci_low: float
    ci_high: float
    tasks: int


def measure(
    successes: Mapping[str, float],
    scores: Sequence[float],
    *,
    strategy: str,
    end: End,
    costs: Costs,
    scorer: str | None = None,
    aggregation: str | None = None,
    n: int = 1,
    m: int = 1,
    failed: int = 0,
    search: str | None = None,
    episodes: float | None = None,
) -> Measurement:
    """Build a measurement from per-task values.

    Args:
        successes: task id → (expected) success, in [0, 1].
        scores: the environment's own (expected) scores of the same tasks, in the same order.
        strategy: see :class:`EvaluationRecord`, as for all that follows.
        end: who ended the episodes.
        costs: per task.
        scorer: name of the scorer.
        aggregation: name of the rule.
        n: candidates.
        m: actions per partial trajectory.
        failed: episodes.
        search: name of the search.
        episodes: that are sampled, mean per task.

    Raises:
        DataError: for no tasks, or values that are not finite.
        ValueError: if there is not one score per task.
    """
    if len(scores) != len(successes):
        raise ValueError(f"{len(scores)} scores for {len(successes)} tasks")
    interval = mean_interval(list(successes.values()))
    record = EvaluationRecord(
        strategy=strategy,
        scorer=scorer,
        aggregation=aggregation,
        n=n,
        m=m,
        end=end.value,
        success_rate=interval.mean,
        ci_low=interval.low,
        ci_high=interval.high,
        mean_score=math.fsum(scores) / len(scores),
        policy_tokens=costs.policy_tokens,
        sampled_tokens=costs.sampled_tokens,
        prm_tokens=costs.prm_tokens,
        env_steps=costs.env_steps,
        tasks=len(successes),
        failed=failed,
        search=search,
        episodes=episodes,
    )
    return Measurement(record, dict(successes))


def measure_results(
    results: Sequence[SearchResult],
    *,
    strategy: str,
    scorer: str | None = None,
    aggregation: str | None = None,
    n: int = 1,
    m: int = 1,
    search: str | None = None,
) -> Measurement:
    """Build a measurement from a search's results, one per task.

    Raises:
        DataError: for no results, or a task that is there twice.
        EpisodesFailedError: if no episode worked.
        MismatchError: for results with different ``end``.
    """
    successes = {result.trajectory.task.id: float(result.trajectory.outcome.success) for result in results}
    if not results or len(successes) < len(results):
        raise DataError(
            f"{len(results)} results of {len(successes)} tasks; expected one result for each task"
        )
    ends = {result.trajectory.end for result in results}
    if len(ends) > 1:
        raise MismatchError(f"the results have different ends: {', '.join(sorted(ends))}")
    return measure(
        successes,
        [result.trajectory.outcome.score for result in results],
        strategy=strategy,
        end=ends.pop(),
        scorer=scorer,
        aggregation=aggregation,
        n=n,
        m=m,
        search=search,
        failed=report_failures(strategy, [result.trajectory for result in results]),
        costs=Costs(
            _mean([result.policy_tokens for result in results]),
            _mean([result.sampled_tokens for result in results]),
            _mean([result.scorer_tokens for result in results]),
            _mean([result.distinct_steps for result in results]),
        ),
    )


def compare(a: Measurement, b: Measurement) -> Comparison:
    """Compare two measurements task by task.

    Raises:
        MismatchError: see :func:`difference`.
    """
    interval = difference(a, b)
    return Comparison(
        a=a.record.name,
        b=b.record.name,
        difference=interval.mean,
        ci_low=interval.low,
        ci_high=interval.high,
        tasks=len(a.successes),
    )


def difference(a: Measurement, b: Measurement) -> Interval:
    """Return the difference of two measurements with its 95 % interval, tasks paired.

    Raises:
        MismatchError: if they are not of the same tasks under the same ``end``.
    """
    if a.record.end != b.record.end:
        raise MismatchError(f"{a.record.end} episodes cannot be compared with {b.record.end} ones")
    if a.successes.keys() != b.successes.keys():
        missing = sorted(a.successes.keys() ^ b.successes.keys())
        raise MismatchError(
            f"a comparison needs the same tasks on both sides; {missing[:3]} are on one side only"
        )
    order = sorted(a.successes)
    return paired_interval([a.successes[t] for t in order], [b.successes[t] for t in order])


def _mean(numbers: Sequence[int]) -> float:
    return math.fsum(numbers) / len(numbers)
