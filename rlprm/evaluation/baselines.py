"""The free baselines of a table, and the first question of every table: can the outcome be read?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlprm.evaluation.bon import best_of_n
from rlprm.evaluation.majority import AnswerOf, majority_of_n
from rlprm.evaluation.pool import Pool
from rlprm.evaluation.records import BEST_OF_N, GREEDY, MAJORITY, Comparison, Measurement, compare

__all__ = [
    "GUIDANCE",
    "RERANKING",
    "FreeBaseline",
    "TaskKind",
    "baseline_comparisons",
    "best_free_baseline",
    "task_kind",
]

GUIDANCE, RERANKING = "guidance", "reranking"
_TIE = 1e-9


@dataclass(frozen=True)
class FreeBaseline:
    """The free baseline that was best on dev tasks."""

    name: str
    """Of its scorer, or ``majority``."""
    k: int
    """The budget it was chosen at."""
    success_rates: Mapping[str, float]
    """Free baseline → its success at the budget on the dev tasks."""


@dataclass(frozen=True)
class TaskKind:
    """What a table's best-of-N measures."""

    kind: str
    """``guidance`` if best-of-N by the transcript rule closes more than half of the gap between one sample
    and the oracle: best-of-N then measures reading, and search by steps is the endpoint. Else ``reranking``.
    """
    gap_closed: float | None
    """Share of the gap that the rule closes; None without a rule, or without a gap."""
    n: int
    """Candidates of best-of-N."""

    def __str__(self) -> str:
        """Return the line of a table's header."""
        if self.gap_closed is None:
            return f"No transcript rule closes a gap: {self.kind} task"
        return (
            f"The transcript rule closes {100 * self.gap_closed:.0f} % of the gap between one sample and the "
            f"oracle (N = {self.n}): {self.kind} task"
        )


def task_kind(gaps: Mapping[str, Mapping[int, float | None]], rule: str, n: int) -> TaskKind:
    """Return the kind of a table's tasks.

    Args:
        gaps: of ``bon.gap_closed``.
        rule: name of the scorer that reads transcripts.
        n: candidates of best-of-N.
    """
    closed = gaps.get(rule, {}).get(n)
    return TaskKind(GUIDANCE if closed is not None and closed > 0.5 else RERANKING, closed, n)


def best_free_baseline(
    dev: Pool, rules: Mapping[str, str], k: int, answer: AnswerOf | None = None
) -> FreeBaseline:
    """Choose the free baseline of the highest success at k candidates; of equals, the first.

    Args:
        dev: pool of dev tasks, never of those that are reported.
        rules: name of each free scorer of the pool → its aggregation, in the order that settles ties.
        k: the budget.
        answer: reads final answers, for the majority; None if answers do not compare.
    """
    rates = {name: best_of_n(dev, name, rule, [k])[0].record.success_rate for name, rule in rules.items()}
    if answer is not None:
        rates[MAJORITY] = majority_of_n(dev, answer, [k])[0].record.success_rate
    best = max(rates.values())
    return FreeBaseline(next(name for name, rate in rates.items() if rate >= best - _TIE), k, rates)


def baseline_comparisons(
    measurements: Sequence[Measurement], *, main: str, n: int, best_free: str
) -> list[Comparison]:
    """Compare the main scorer's best-of-n, and every search, with free baselines.

    Best-of-n is compared with greedy decoding and the majority (its comparisons with other scorers are
    ``bon.comparisons``), a search with best-of-n by the best free baseline.

    Args:
        measurements: with one aggregation per scorer (see ``bon.headline``).
        main: name of the scorer that is put to the test.
        n: the budget of best-of-n.
        best_free: from :func:`best_free_baseline`.
    """
    at_n = [m for m in measurements if m.record.n == n]
    ours = [m for m in at_n if m.record.strategy == BEST_OF_N and m.record.scorer == main]
    greedy = [m for m in measurements if m.record.strategy == GREEDY]
    votes = [m for m in at_n if m.record.strategy == MAJORITY]
    free = [m for m in at_n if m.record.strategy == BEST_OF_N and m.record.scorer == best_free]
    searches = [m for m in measurements if m.record.is_search]
    return [
        *(compare(m, other) for m in ours for other in (*greedy, *votes)),
        *(compare(m, other) for m in searches for other in (votes if best_free == MAJORITY else free)),
    ]
