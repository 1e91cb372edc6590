"""``summary.json``: the results of an evaluation, for other programs and for reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rlprm.evaluation.baselines import FreeBaseline, TaskKind
from rlprm.evaluation.bon import AggregationChoice, gap_closed
from rlprm.evaluation.discrimination import Discrimination
from rlprm.evaluation.equal_cost import EqualCost
from rlprm.evaluation.quality import ForesightAUC, RunningAUC, StepQuality
from rlprm.evaluation.records import GREEDY, ORACLE, SAMPLE_MEAN, Comparison, EvaluationRecord, Measurement

__all__ = ["Findings", "summarize"]


@dataclass(frozen=True)
class Findings:
    """All results of one evaluation: what tables, plots and the summary are made of."""

    measurements: Sequence[Measurement]
    """With one aggregation per scorer, see ``bon.headline``."""
    choices: Sequence[AggregationChoice] = ()
    """Of the aggregations, on dev tasks."""
    paired: Sequence[Comparison] = ()
    """From ``bon.comparisons`` and ``baselines.baseline_comparisons``."""
    quality: Sequence[StepQuality] = ()
    """From ``quality.step_quality``."""
    discrimination: Sequence[Discrimination] = ()
    """From ``discrimination.evaluate_discrimination``."""
    kind: TaskKind | None = None
    """From ``baselines.task_kind``."""
    best_free: FreeBaseline | None = None
    """From ``baselines.best_free_baseline``."""
    foresight: Sequence[ForesightAUC] = ()
    """From ``quality.foresight``, of all scorers."""
    running: Sequence[RunningAUC] = ()
    """From ``quality.running``, of all scorers."""
    equal_cost: Sequence[EqualCost] = ()
    """From ``equal_cost.at_equal_cost``, of all searches."""
    reference: Sequence[Measurement] = ()
    """The curve that searches are compared with at equal cost."""

    @property
    def records(self) -> list[EvaluationRecord]:
        """The rows of the tables."""
        return [m.record for m in self.measurements]


def summarize(
    findings: Findings,
    *,
    seconds: Mapping[str, float] | None = None,
    peak_memory: Mapping[str, int] | None = None,
    compute: Mapping[str, Mapping[str, float | None]] | None = None,
) -> dict[str, Any]:
    """Return the summary as plain values, ready for ``write_json``.

    Args:
        findings: of the evaluation.
        seconds: part of the stage → how long it took.
        peak_memory: part of the stage → bytes, see ``compute.Meter``.
        compute: name of a row → from ``compute.row_compute``.

    Raises:
        ConfigError: if a scorer is there with several aggregations, or a bound is missing.
    """
    records, measurements = findings.records, findings.measurements
    rate = {r.strategy: r.success_rate for r in records if r.strategy in (GREEDY, SAMPLE_MEAN)}
    return {
        "policy": {"greedy": rate.get(GREEDY), "sample_mean": rate.get(SAMPLE_MEAN)},
        "evaluation": [asdict(record) for record in records],
        "oracle": {str(r.n): r.success_rate for r in records if r.strategy == ORACLE},
        "gap_closed": {
            scorer: {str(k): x for k, x in of_scorer.items()}
            for scorer, of_scorer in gap_closed(measurements).items()
        },
        "aggregation": {choice.scorer: asdict(choice) for choice in findings.choices},
        "paired": [asdict(comparison) for comparison in findings.paired],
        "quality": {q.scorer: q.as_json() for q in findings.quality},
        "discrimination": {d.scorer: d.as_json() for d in findings.discrimination},
        "task_kind": None if findings.kind is None else asdict(findings.kind),
        "best_free_baseline": None if findings.best_free is None else asdict(findings.best_free),
        "foresight": [asdict(point) for point in findings.foresight],
        "foresight_running": [asdict(point) for point in findings.running],
        "equal_cost": [asdict(comparison) for comparison in findings.equal_cost],
        "compute": {name: dict(costs) for name, costs in (compute or {}).items()},
        "seconds": dict(seconds or {}),
        "peak_memory": dict(peak_memory or {}),
    }
