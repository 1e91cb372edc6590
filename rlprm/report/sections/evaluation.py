"""An evaluation: what each strategy reached, at what cost, and what the step values are worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from rlprm.evaluation.baselines import GUIDANCE
from rlprm.evaluation.records import (
    BEAM,
    BEST_OF_N,
    GREEDY,
    MAJORITY,
    ORACLE,
    SEARCH,
    UNTIL_ACCEPTED,
    EvaluationRecord,
)
from rlprm.evaluation.table import rows
from rlprm.report.charts import Series, line_chart
from rlprm.report.finding import Part, Run
from rlprm.report.html import details, note, section, table, warning
from rlprm.report.values import in_points, numbers, percentages, read_mapping

__all__ = ["evaluation_records", "evaluation_section", "records_of"]

_CURVES = (BEST_OF_N, UNTIL_ACCEPTED, MAJORITY, ORACLE)
_FIELDS = {f.name for f in fields(EvaluationRecord)}


def evaluation_records(run: Run) -> dict[str, EvaluationRecord]:
    """Return the rows of the tables of a run's evaluations by name; the first of equal names counts."""
    found: dict[str, EvaluationRecord] = {}
    for part in run.of("evaluate"):
        for record in records_of(part):
            found.setdefault(record.name, record)
    return found


def records_of(part: Part) -> list[EvaluationRecord]:
    """Return the rows of an evaluation's tables; none if it has not finished."""
    return _records(read_mapping(part.folder / "summary.json"))


def _records(summary: Mapping[str, Any]) -> list[EvaluationRecord]:
    rows_of = summary.get("evaluation") or ()
    return [EvaluationRecord(**{k: v for k, v in row.items() if k in _FIELDS}) for row in rows_of]


def evaluation_section(part: Part, title: str) -> str:
    """Return the tables and curves of an evaluation."""
    summary = read_mapping(part.folder / "summary.json")
    records = _records(summary)
    if not records:
        return section(title, note("This evaluation has not finished; its trajectories are below."))
    return section(
        title,
        *_warnings(summary, records),
        _results(records),
        _charts(records),
        details("Differences between strategies, paired over tasks", _paired(summary)),
        details("Searches at equal cost", _equal_cost(summary)),
        details("What the step values tell: calibration and AUC", _quality(summary), _foresight(summary)),
        details("Seconds of each part", _seconds(summary)),
        about=f"{records[0].tasks} test tasks, end {records[0].end}. Intervals are 95 %, over tasks.",
    )


def _warnings(summary: Mapping[str, Any], records: Sequence[EvaluationRecord]) -> Iterator[str]:
    kind = summary.get("task_kind") or {}
    if kind.get("kind") == GUIDANCE:
        yield warning(
            f"A rule on the transcript closes {100 * kind['gap_closed']:.0f} % of the gap between one sample "
            "and the oracle: best-of-N measures reading here, and searches by steps are the question."
        )
    one = next((r.success_rate for r in records if r.strategy == "sample_mean"), None)
    if one is not None and not 0.05 <= one <= 0.95:
        yield warning(
            f"One sample succeeds in {100 * one:.1f} %: differences between scorers have little room."
        )
    for name, quality in (summary.get("quality") or {}).items():
        points = [p["auc"] for p in quality.get("by_position", ()) if p.get("auc") is not None]
        if points and max(points) <= 0.55:
            yield warning(
                f"The values of {name} do not tell success from failure: AUC at most {max(points):.2f}."
            )


def _results(records: Sequence[EvaluationRecord]) -> str:
    lines = []
    for row in rows(records):
        largest = max(row, key=lambda r: r.n)
        rule = f" ({largest.aggregation})" if largest.aggregation else ""
        rate = percentages(largest.success_rate, largest.ci_low, largest.ci_high)
        score = f"{100 * largest.mean_score:.1f}"
        costs = largest.env_steps, largest.total_tokens, largest.sampled_tokens
        lines.append((largest.name + rule, rate, score, *map(float, costs)))
    head = ("strategy, at its largest budget", "success in %", "score in %", "steps", "tokens", "sampled")
    return table(head, lines, caption="Costs are means per task; tokens go through policy and scorer.")


def _charts(records: Sequence[EvaluationRecord]) -> str:
    charts = (
        line_chart(_series(records, of), x_label=label, y_label="success", log_x=True, percent=True)
        for of, label in (
            (lambda r: float(r.n * r.m), "candidates per task, N (beam: N·M)"),
            (lambda r: r.total_tokens, "tokens per task, policy and scorer"),
            (lambda r: r.env_steps, "environment steps per task"),
        )
    )
    return f'<div class="charts">{"".join(charts)}</div>'


def _series(records: Sequence[EvaluationRecord], x_of: Callable[[EvaluationRecord], float]) -> list[Series]:
    found = []
    for row in rows(records):
        first = row[0]
        is_search, is_bound = first.strategy in (BEAM, SEARCH), first.strategy in (ORACLE, GREEDY)
        if first.strategy not in (*_CURVES, BEAM, SEARCH, GREEDY):
            continue
        sizes = [f"{r.n}×{r.m}" if r.strategy == BEAM else "" for r in row] if is_search or is_bound else []
        if first.strategy == ORACLE:
            sizes = []
        found.append(
            Series(
                first.label,
                [x_of(r) for r in row],
                [r.success_rate for r in row],
                [r.ci_low for r in row] if not is_bound else (),
                [r.ci_high for r in row] if not is_bound else (),
                is_bound=is_bound,
                labels=sizes,
                group=first.scorer or "",
            )
        )
    return found


def _paired(summary: Mapping[str, Any]) -> str:
    lines = [
        (
            f"{c['a']} − {c['b']}",
            in_points(c["difference"], c["ci_low"], c["ci_high"]),
        )
        for c in summary.get("paired") or ()
    ]
    return table(("strategies", "points of success"), lines)


def _equal_cost(summary: Mapping[str, Any]) -> str:
    lines = [
        (
            c["search"], c["cost"].replace("_", " "), float(c["spent"]),
            f"{100 * c['success_rate']:.1f}",
            in_points(c["difference"], c["ci_low"], c["ci_high"]),
        )
        for c in summary.get("equal_cost") or ()
    ]  # fmt: skip
    reference = next((c["reference"] for c in summary.get("equal_cost") or ()), "")
    return table(("search", "at equal", "spent", f"{reference}: success in %", "search − reference"), lines)


def _quality(summary: Mapping[str, Any]) -> str:
    qualities = summary.get("quality") or {}
    auc, calibrated = [], []
    for name, quality in qualities.items():
        points = [
            (p["position"], p["auc"]) for p in quality.get("by_position", ()) if p.get("auc") is not None
        ]
        auc.append(Series(name, [x for x, _ in points], [y for _, y in points]))
        bins = [b for b in (quality.get("calibration") or {}).get("bins", ()) if b.get("size")]
        error = (quality.get("calibration") or {}).get("expected_error")
        if bins and error is not None:
            means, rates = [b["mean_value"] for b in bins], [b["success_rate"] for b in bins]
            calibrated.append(Series(f"{name}, error {error:.3f}", means, rates))
    charts = (
        line_chart(auc, x_label="position in the trajectory, t / T", y_label="AUC of values"),
        line_chart(
            calibrated,
            x_label="predicted success, v_t",
            y_label="observed",
            percent=True,
            y_range=(0, 1),
            diagonal=True,
        ),
    )
    return f'<div class="charts">{"".join(charts)}</div>'


def _foresight(summary: Mapping[str, Any]) -> str:
    points = summary.get("foresight") or ()
    shares = sorted({point["share"] for point in points})
    of = {(point["scorer"], point["share"]): point for point in points}
    names = dict.fromkeys(point["scorer"] for point in points)
    lines = [
        (name, *(numbers(of.get((name, share)), "auc", "auc_within_task") for share in shares))
        for name in names
    ]
    head = ("scorer", *(f"after {100 * share:.0f} %" for share in shares))
    return table(
        head, lines, caption="AUC of the newest value after a share of the actions: all tasks, within tasks"
    )


def _seconds(summary: Mapping[str, Any]) -> str:
    return table(
        ("part", "seconds"), sorted((summary.get("seconds") or {}).items(), key=lambda pair: -pair[1])
    )
