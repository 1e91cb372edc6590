"""Best-of-N from one pool: exact for every budget k up to n, with its bounds beside it.

A pool of n candidates per task gives, without resampling, the expected success
of best-of-k for each k ≤ n (``rlprm.functional.best_of_n``). The bounds are one
sample (choosing by lot) and the oracle (pass@k: choosing perfectly); what lies
between them is what a scorer can win:

    gap_closed(k) = (BoN@k - mean) / (oracle@k - mean)

A rule that recognises success makes most of the k candidates superfluous: sampling may stop at the first that
the rule accepts. Success and costs of this are exact, too.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlprm.data.fed_tokens import expected_fed_tokens, shared_tokens
from rlprm.errors import ConfigError
from rlprm.evaluation.pool import Pool, shared_steps
from rlprm.evaluation.records import (
    BEST_OF_N,
    GREEDY,
    ORACLE,
    SAMPLE_MEAN,
    UNTIL_ACCEPTED,
    Comparison,
    Costs,
    Measurement,
    compare,
    measure,
)
from rlprm.functional.aggregation import AGGREGATIONS
from rlprm.functional.best_of_n import expected_cost, oracle_at_k, pass_at_k, until_accepted_curve
from rlprm.scorers.transcript import ACCEPTED
from rlprm.search.base import end_rank, rank_score
from rlprm.search.best_of_n import expected
from rlprm.types import StepScores, Trajectory

_TIE = 1e-9
"""Success rates closer than this are equal: two rules that choose alike may differ by rounding."""


@dataclass(frozen=True)
class AggregationChoice:
    """Which aggregation was best on dev tasks."""

    scorer: str
    name: str
    k: int
    """The budget it was chosen at."""
    success_rates: Mapping[str, float]
    """Aggregation → BoN@k on the dev tasks."""


def sample_mean(pool: Pool) -> Measurement:
    """Measure one sample: the mean over each task's candidates."""
    return measure(
        {t: _mean([float(c.outcome.success) for c in row]) for t, row in _rows(pool)},
        [_mean([c.outcome.score for c in row]) for _, row in _rows(pool)],
        strategy=SAMPLE_MEAN,
        end=pool.end,
        costs=_costs(pool, None, 1),
        failed=pool.failed,
    )


def oracle(pool: Pool, budgets: Sequence[int]) -> list[Measurement]:
    """Measure the best possible choice, pass@k, for each budget.

    Raises:
        ConfigError: for a budget outside ``1 ... n``.
    """
    return [
        measure(
            {t: pass_at_k(pool.n, sum(c.outcome.success for c in row), k) for t, row in _rows(pool)},
            [oracle_at_k([c.outcome.score for c in row], k) for _, row in _rows(pool)],
            strategy=ORACLE,
            end=pool.end,
            n=k,
            costs=_costs(pool, None, k),
            failed=pool.failed,
        )
        for k in budgets
    ]


def best_of_n(pool: Pool, scorer: str, aggregation: str, budgets: Sequence[int]) -> list[Measurement]:
    """Measure BoN@k with one scorer and aggregation, for each budget k.

    Costs are those of k candidates, as the mean over all draws of k from the pool.

    Raises:
        ConfigError: for an unknown scorer or aggregation, or a budget outside ``1 ... n``.
    """
    rows = list(zip(_rows(pool), pool.scores_of(scorer), strict=True))
    success = {t: expected(row, scores, aggregation, budgets) for (t, row), scores in rows}
    graded = [expected(row, scores, aggregation, budgets, graded=True) for (_, row), scores in rows]
    return [
        measure(
            {t: of_task[k] for t, of_task in success.items()},
            [of_task[k] for of_task in graded],
            strategy=BEST_OF_N,
            end=pool.end,
            scorer=scorer,
            aggregation=aggregation,
            n=k,
            costs=_costs(pool, scorer, k),
            failed=pool.failed,
        )
        for k in budgets
    ]


def until_accepted(pool: Pool, scorer: str, aggregation: str, budgets: Sequence[int]) -> list[Measurement]:
    """Measure sampling one episode after another until a rule accepts one, k at most, for each budget k.

    An episode is accepted if its last step score is 1. If none of k is accepted, the result is the best one
    as searches have it: terminated before truncated before failed, then by score. Success and costs are means
    over all orders in which the candidates of the pool may be drawn. Steps and tokens that episodes share are
    counted as in best-of-N.

    Args:
        pool: scored by the rule.
        scorer: name of the rule.
        aggregation: what candidates that ended alike are chosen by if none is accepted.
        budgets: each in ``1 ... n``.

    Raises:
        ConfigError: for an unknown scorer or aggregation, or a budget outside ``1 ... n``.
    """
    rows = list(zip(_rows(pool), pool.scores_of(scorer), strict=True))
    tasks = [_Until(row, scores, aggregation) for (_, row), scores in rows]
    success, graded = ([task.rewards(kind, budgets) for task in tasks] for kind in ("success", "score"))
    return [
        measure(
            {task: of_task[k] for task, of_task in zip(pool.task_ids, success, strict=True)},
            [of_task[k] for of_task in graded],
            strategy=UNTIL_ACCEPTED,
            end=pool.end,
            scorer=scorer,
            aggregation=aggregation,
            n=k,
            costs=Costs(*(_mean([task.cost(name, k) for task in tasks]) for name in Costs._fields)),
            failed=pool.failed,
            episodes=_mean([task.cost("episodes", k) for task in tasks]),
        )
        for k in budgets
    ]


class _Until:
    """Sampling until acceptance from the candidates of one task."""

    def __init__(
        self, row: Sequence[Trajectory], scores: Sequence[StepScores | None], aggregation: str
    ) -> None:
        self.row = row
        ends = [(end_rank(t.stop), rank_score(s, aggregation)) for t, s in zip(row, scores, strict=True)]
        places = {end: place for place, end in enumerate(sorted(set(ends)))}
        self.ranks = [places[end] for end in ends]
        self.accepted = {i for i, s in enumerate(scores) if s is not None and s.values[-1] >= ACCEPTED}
        self.costs = {
            "policy_tokens": shared_tokens(row, self.accepted),
            "env_steps": shared_steps(row, self.accepted),
            "sampled_tokens": self._own([t.action_tokens for t in row]),
            "prm_tokens": self._own([0 if s is None else s.tokens for s in scores]),
            "episodes": self._own([1] * len(row)),
        }

    def _own(self, costs: Sequence[int]) -> Counter[tuple[int, int]]:
        """Return costs that no two candidates share."""
        of_accepted = sum(costs[i] for i in self.accepted)
        shares = Counter({(1, 0): sum(costs) - of_accepted, (0, 1): of_accepted})
        return +shares  # without those of 0: there may be no candidate of the kind

    def rewards(self, kind: str, budgets: Sequence[int]) -> dict[int, float]:
        accepted = [i in self.accepted for i in range(len(self.row))]
        return until_accepted_curve(self.ranks, [t.outcome.value(kind) for t in self.row], accepted, budgets)

    def cost(self, name: str, k: int) -> float:
        return expected_cost(len(self.row), k, self.costs[name], len(self.accepted))


def evaluate_pool(
    pool: Pool, aggregations: Mapping[str, Sequence[str]], budgets: Sequence[int]
) -> list[Measurement]:
    """Measure one sample, the oracle, and each scorer × aggregation × budget of a pool.

    Args:
        pool: with the scores of all scorers named.
        aggregations: scorer → rules to use with it.
        budgets: each in ``1 ... n``.

    Raises:
        ConfigError: for an unknown scorer or aggregation, or a budget outside ``1 ... n``.
    """
    measurements = [sample_mean(pool), *oracle(pool, budgets)]
    for scorer, names in aggregations.items():
        for name in names:
            measurements += best_of_n(pool, scorer, name, budgets)
    return measurements


def choose_aggregation(
    dev_pool: Pool, scorer: str, k: int, candidates: Sequence[str] = tuple(AGGREGATIONS)
) -> AggregationChoice:
    """Choose the aggregation with the highest BoN@k; of equals, the first in order.

    Args:
        dev_pool: of dev tasks, never of those that are reported.
        scorer: whose scores.
        k: the budget to choose at.
        candidates: rules to choose from, in the order that settles ties.

    Raises:
        ConfigError: for no candidates, an unknown scorer or aggregation, or ``k`` outside ``1 ... n``.
    """
    if not candidates:
        raise ConfigError("no aggregation to choose from")
    rates = {name: best_of_n(dev_pool, scorer, name, [k])[0].record.success_rate for name in candidates}
    best = max(rates.values())
    name = next(name for name, rate in rates.items() if rate >= best - _TIE)
    return AggregationChoice(scorer, name, k, rates)


def headline(measurements: Sequence[Measurement], aggregations: Mapping[str, str]) -> list[Measurement]:
    """Keep, of the best-of-N measurements, those with each scorer's chosen aggregation; keep all others."""
    return [
        m
        for m in measurements
        if m.record.strategy != BEST_OF_N or m.record.aggregation == aggregations.get(m.record.scorer or "")
    ]


def gap_closed(measurements: Sequence[Measurement]) -> dict[str, dict[int, float | None]]:
    """Return scorer → k → share of the gap between one sample and the oracle that best-of-k closes.

    Negative where choosing by the scorer is worse than by lot; None where there is
    no gap (k = 1, or tasks that are solved always or never).

    Args:
        measurements: of one pool, with one aggregation per scorer (see ``headline``).

    Raises:
        ConfigError: if a scorer is there with several aggregations, or the bounds are missing.
    """
    gaps: dict[str, dict[int, float | None]] = {}
    for m in measurements:
        if m.record.strategy != BEST_OF_N or m.record.scorer is None:
            continue
        mean = _only(measurements, SAMPLE_MEAN).record.success_rate
        of_scorer = gaps.setdefault(m.record.scorer, {})
        if m.record.n in of_scorer:
            raise ConfigError(f"{m.record.scorer} is there with several aggregations; choose one first")
        gap = _only(measurements, ORACLE, n=m.record.n).record.success_rate - mean
        of_scorer[m.record.n] = (m.record.success_rate - mean) / gap if gap > _TIE else None
    return gaps


def comparisons(measurements: Sequence[Measurement], *, main: str, n: int) -> list[Comparison]:
    """Compare the main scorer's best-of-n with all else at n, and every search with greedy decoding.

    Args:
        measurements: with one aggregation per scorer (see ``headline``).
        main: name of the scorer that is put to the test.
        n: the budget.

    Raises:
        ConfigError: if the main scorer has no measurement at n.
        MismatchError: for measurements of different tasks.
    """
    ours = _only(measurements, BEST_OF_N, scorer=main, n=n)
    others = [
        m
        for m in measurements
        if m.record.strategy == BEST_OF_N and m.record.n == n and m.record.scorer != main
    ]
    differences = [compare(ours, other) for other in (_only(measurements, SAMPLE_MEAN), *others)]
    greedy = [m for m in measurements if m.record.strategy == GREEDY]
    searches = [m for m in measurements if m.record.is_search]
    return [*differences, *(compare(search, g) for search in searches for g in greedy)]


def _only(
    measurements: Sequence[Measurement], strategy: str, *, scorer: str | None = None, n: int = 1
) -> Measurement:
    matching = [
        m for m in measurements if (m.record.strategy, m.record.scorer, m.record.n) == (strategy, scorer, n)
    ]
    if len(matching) != 1:
        what = strategy if scorer is None else f"{strategy} with {scorer}"
        raise ConfigError(f"expected one measurement of {what} at N = {n}, got {len(matching)}")
    return matching[0]


def _rows(pool: Pool) -> list[tuple[str, Sequence[Trajectory]]]:
    return list(zip(pool.task_ids, pool.trajectories, strict=True))


def _costs(pool: Pool, scorer: str | None, k: int) -> Costs:
    """Return the mean cost per task of k candidates.

    The policy reads what several candidates share once, and the environment carries it out once. A scorer
    reads each candidate from its first token.
    """
    scores = [] if scorer is None else [s for row in pool.scores_of(scorer) for s in row]
    size = len(pool.flat)
    return Costs(
        policy_tokens=_mean([expected_fed_tokens(row, k) for row in pool.trajectories]),
        sampled_tokens=k * sum(t.action_tokens for t in pool.flat) / size,
        prm_tokens=k * sum(s.tokens for s in scores if s is not None) / size,
        env_steps=pool.expected_steps(k),
    )


def _mean(numbers: Sequence[float]) -> float:
    return math.fsum(numbers) / len(numbers)
