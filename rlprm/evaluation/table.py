"""Records as tables in the terminal: strategies in rows, budgets in columns, no wider than asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rlprm.evaluation.bon import gap_closed
from rlprm.evaluation.equal_cost import COSTS, EqualCost
from rlprm.evaluation.quality import ForesightAUC, RunningAUC
from rlprm.evaluation.records import (
    BEAM,
    BEST_OF_N,
    GREEDY,
    MAJORITY,
    ORACLE,
    SAMPLE_MEAN,
    SEARCH,
    UNTIL_ACCEPTED,
    Comparison,
    EvaluationRecord,
)
from rlprm.evaluation.summary import Findings

__all__ = [
    "TABLE_WIDTH",
    "all_tables",
    "foresight_table",
    "gap_table",
    "paired_table",
    "results_tables",
    "rows",
    "running_table",
    "searches_table",
]

TABLE_WIDTH = 80
"""Characters of a line in files, and if there is no terminal to ask."""

_NAME_WIDTHS = (26, 22, 18)
"""Of the first column if the table is narrow; a longer name goes on in the next line."""
_ORDER = (GREEDY, SAMPLE_MEAN, MAJORITY, BEST_OF_N, UNTIL_ACCEPTED, BEAM, SEARCH, ORACLE)


def all_tables(findings: Findings, *, title: str, width: int, n: int) -> list[Table]:
    """Return the tables of an evaluation, in the order of reading.

    Args:
        findings: of the evaluation.
        title: of the first table.
        width: characters of a line.
        n: candidates at which the gap to the oracle is shown.
    """
    records = findings.records
    tables = results_tables([r for r in records if r.strategy != SEARCH], title=title, width=width)
    if findings.kind is not None:
        tables[0].title = f"{tables[0].title}\n{findings.kind}"
    searches = [r for r in records if r.is_search]
    tables += [searches_table(searches, findings.equal_cost)] if searches else []
    tables += [paired_table(findings.paired)] if findings.paired else []
    gaps = gap_closed(findings.measurements)
    closed = {scorer: gap for scorer in gaps if (gap := gaps[scorer].get(n)) is not None}
    tables += [gap_table(closed, n)] if closed else []
    tables += [foresight_table(findings.foresight)] if findings.foresight else []
    tables += [running_table(findings.running)] if any(point.tasks for point in findings.running) else []
    return tables


def results_tables(
    records: Sequence[EvaluationRecord], *, title: str = "Success in %", width: int = TABLE_WIDTH
) -> list[Table]:
    """Return tables of success rates with their 95 % intervals.

    Rows keep the order of the records within a strategy; the oracle comes last. The last column is the
    compute of the largest budget of a row. If one table is too wide, the intervals move below the rates;
    if that is still too wide, the budgets are split over several tables.

    Args:
        records: at least one.
        title: of the first table.
        width: characters of a line.
    """
    budgets = sorted({record.n for record in records})
    complete = (
        _results_table(records, budgets, names=names, one_line=names is None)
        for names in (None, *_NAME_WIDTHS)
    )
    fitting = next((table for table in complete if _width_of(table) <= width), None)
    tables = [fitting] if fitting else _split_tables(records, budgets, width)
    tables[0].title = escape(_title(title, records))
    return tables


def paired_table(comparisons: Sequence[Comparison]) -> Table:
    """Return a table of differences of success rates on the same tasks."""
    table = _empty_table("Difference of success in points, paired over tasks")
    table.add_column("strategies", overflow="fold")
    table.add_column("points", justify="right", no_wrap=True)
    table.add_column("95 % interval", justify="right", no_wrap=True)
    for c in comparisons:
        difference, low, high = (f"{100 * x:+.1f}" for x in (c.difference, c.ci_low, c.ci_high))
        table.add_row(escape(f"{c.a} - {c.b}"), difference, f"\\[{low}, {high}]")
    return table


def searches_table(records: Sequence[EvaluationRecord], compared: Sequence[EqualCost]) -> Table:
    """Return a table of searches, each beside the reference at equal cost.

    Args:
        records: of searches.
        compared: of the same searches, by both costs.
    """
    at = {(c.search, c.cost): c for c in compared}
    reference = f", and at equal cost: {compared[0].reference}" if compared else ""
    table = _empty_table(escape(f"Searches{reference}"))
    table.add_column("search", overflow="fold", max_width=_NAME_WIDTHS[0])
    for header in ("success\n", "steps\nper task", "tokens\nper task"):
        table.add_column(header, justify="right", no_wrap=True)
    if compared:
        for header in ("at equal\nsteps", "at equal\ntokens"):
            table.add_column(header, justify="right", no_wrap=True)
    for record in records:
        cells = [_cell(record, "\n"), f"{record.env_steps:,.1f}", f"{record.total_tokens:,.0f}"]
        cells += [_at_equal_cost(at.get((record.name, cost))) for cost in COSTS] if compared else []
        rule = "" if record.aggregation is None else f" ({record.aggregation})"
        table.add_row(escape(f"{record.name}{rule}"), *cells)
    return table


def _at_equal_cost(compared: EqualCost | None) -> str:
    if compared is None:
        return ""
    sign = ">" if compared.beyond_pool else "<" if compared.below_one else "="
    n = f"{compared.n:.0f}" if sign != "=" else f"{compared.n:.1f}"
    return f"{100 * compared.success_rate:.1f}\nN {sign} {n}"


def foresight_table(points: Sequence[ForesightAUC]) -> Table:
    """Return a table of AUCs after shares of an episode's actions, over all tasks and within tasks."""
    table = _empty_table("AUC of the newest value after a share of the actions: over tasks, within tasks")
    table.add_column("scorer", overflow="fold")
    shares = sorted({point.share for point in points})
    for share in shares:
        table.add_column(f"{100 * share:.0f} %", justify="right", no_wrap=True)
    at = {(point.scorer, point.share): point for point in points}
    for scorer in dict.fromkeys(point.scorer for point in points):
        cells = [at[scorer, share] for share in shares]
        table.add_row(escape(scorer), *(f"{_number(p.auc)}, {_number(p.auc_within_task)}" for p in cells))
    return table


def running_table(points: Sequence[RunningAUC]) -> Table:
    """Return a table of AUCs within tasks after fixed numbers of actions, among the episodes that run on."""
    table = _empty_table("AUC within tasks of v_t among episodes with more than t actions")
    table.add_column("scorer", overflow="fold")
    at = {(point.scorer, point.t): point for point in points}
    numbers = sorted({point.t for point in points})
    for t in numbers:
        counts = {point.tasks for point in points if point.t == t}
        table.add_column(f"t = {t}\n{max(counts)} tasks", justify="right", no_wrap=True)
    for scorer in dict.fromkeys(point.scorer for point in points):
        table.add_row(escape(scorer), *(_number(at[scorer, t].auc_within_task) for t in numbers))
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def gap_table(gaps: Mapping[str, float], n: int) -> Table:
    """Return a table of the share of the gap between one sample and the oracle that scorers close."""
    table = _empty_table(f"Gap closed at N = {n}: 0 is one sample, 1 the oracle")
    table.add_column("scorer", overflow="fold")
    table.add_column("gap closed", justify="right", no_wrap=True)
    for scorer, gap in gaps.items():
        table.add_row(escape(scorer), f"{gap:.2f}")
    return table


def rows(records: Sequence[EvaluationRecord]) -> list[list[EvaluationRecord]]:
    """Group records that differ in nothing but N, by strategy."""
    groups: dict[tuple[str, str | None, int], list[EvaluationRecord]] = {}
    for record in sorted(records, key=lambda r: _ORDER.index(r.strategy)):  # stable
        groups.setdefault((record.label, record.aggregation, record.m), []).append(record)
    return list(groups.values())


def _split_tables(records: Sequence[EvaluationRecord], budgets: Sequence[int], width: int) -> list[Table]:
    """Split the budgets over several tables, each with as many budgets as fit."""
    tables = []
    while budgets:
        for count in range(len(budgets), 0, -1):
            last = count == len(budgets)
            table = _results_table(records, budgets[:count], names=_NAME_WIDTHS[0], tokens=last)
            if _width_of(table) <= width:
                break
        tables.append(table)
        budgets = budgets[count:]
    return tables


def _results_table(
    records: Sequence[EvaluationRecord],
    budgets: Sequence[int],
    *,
    names: int | None,
    one_line: bool = False,
    tokens: bool = True,
) -> Table:
    """Return a table of some budgets.

    Args:
        records: of any budget.
        budgets: the columns.
        names: the most characters of the first column; None for no limit.
        one_line: whether the interval stands beside the rate instead of below.
        tokens: adds the compute of the largest budget of each row, and the rows without any of the budgets.
    """
    table = _empty_table()
    table.add_column("strategy", overflow="fold", max_width=names)
    for n in budgets:
        table.add_column(f"N = {n}", justify="right", no_wrap=True)
    if tokens:
        table.add_column("tokens\nper task", justify="right", no_wrap=True)
    for row in rows(records):
        cells = {record.n: _cell(record, " " if one_line else "\n") for record in row}
        if tokens or cells.keys() & set(budgets):
            largest = max(row, key=lambda record: record.n)
            compute = [f"{largest.total_tokens:,.0f}"] if tokens else []
            table.add_row(escape(_row_name(row[0])), *(cells.get(n, "") for n in budgets), *compute)
    return table


def _empty_table(title: str | None = None) -> Table:
    return Table(
        title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=0, title_style="none"
    )


def _width_of(table: Table) -> int:
    """Return the characters of a line that a table takes if nothing limits it."""
    console = Console(width=10_000)
    return console.measure(table).maximum


def _title(title: str, records: Sequence[EvaluationRecord]) -> str:
    tasks = "/".join(str(n) for n in sorted({record.tasks for record in records}))
    ends = "/".join(sorted({record.end for record in records}))
    failed = max(record.failed for record in records)
    lost = f"; up to {failed} failed episodes a row count as not solved" if failed else ""
    return f"{title}: {tasks} tasks, end {ends}, [95 % interval over tasks]{lost}"


def _row_name(record: EvaluationRecord) -> str:
    return record.label if record.aggregation is None else f"{record.label} ({record.aggregation})"


def _cell(record: EvaluationRecord, separator: str) -> str:
    low, high = 100 * record.ci_low, 100 * record.ci_high
    return f"{100 * record.success_rate:.1f}{separator}\\[{low:.0f}, {high:.0f}]"
