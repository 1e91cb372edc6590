"""Records as a table in the terminal: strategies in rows, budgets in columns."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from rlprm.evaluation.records import BEAM, BEST_OF_N, GREEDY, ORACLE, SAMPLE_MEAN, EvaluationRecord

_ORDER = (GREEDY, SAMPLE_MEAN, BEST_OF_N, BEAM, ORACLE)


def results_table(records: Sequence[EvaluationRecord], *, title: str = "Success in %") -> Table:
    """Return a table of success rates with their 95 % intervals.

    Rows keep the order of the records within a strategy; the oracle comes last.
    The last column is the compute of the largest budget of a row.
    """
    budgets = sorted({record.n for record in records})
    table = Table(title=_title(title, records), title_justify="left")
    table.add_column("strategy")
    for n in budgets:
        table.add_column(f"N = {n}", justify="right")
    table.add_column("tokens per task", justify="right")
    for row in rows(records):
        cells = {record.n: _cell(record) for record in row}
        largest = max(row, key=lambda record: record.n)
        table.add_row(
            escape(_row_name(row[0])), *(cells.get(n, "") for n in budgets), f"{largest.total_tokens:,.0f}"
        )
    return table


def rows(records: Sequence[EvaluationRecord]) -> list[list[EvaluationRecord]]:
    """Group records that differ in nothing but N, by strategy."""
    groups: dict[tuple[str, str | None, int], list[EvaluationRecord]] = {}
    for record in sorted(records, key=lambda r: _ORDER.index(r.strategy)):  # stable
        groups.setdefault((record.label, record.aggregation, record.m), []).append(record)
    return list(groups.values())


def _title(title: str, records: Sequence[EvaluationRecord]) -> str:
    tasks = "/".join(str(n) for n in sorted({record.tasks for record in records}))
    ends = "/".join(sorted({record.end for record in records}))
    failed = max(record.failed for record in records)
    lost = f"; up to {failed} failed episodes a row count as not solved" if failed else ""
    return f"{title}: {tasks} tasks, end {ends}, [95 % interval over tasks]{lost}"


def _row_name(record: EvaluationRecord) -> str:
    return f"{record.label} ({record.aggregation})" if record.strategy in (BEST_OF_N, BEAM) else record.label


def _cell(record: EvaluationRecord) -> str:
    low, high = 100 * record.ci_low, 100 * record.ci_high
    return f"{100 * record.success_rate:.1f} \\[{low:.0f}, {high:.0f}]"
