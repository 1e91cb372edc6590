"""``summary.json``: the results of an evaluation, for other programs and for reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rlprm.evaluation.bon import AggregationChoice, gap_closed
from rlprm.evaluation.discrimination import Discrimination
from rlprm.evaluation.quality import StepQuality
from rlprm.evaluation.records import GREEDY, ORACLE, SAMPLE_MEAN, Comparison, Measurement


def summarize(
    measurements: Sequence[Measurement],
    *,
    choices: Sequence[AggregationChoice] = (),
    paired: Sequence[Comparison] = (),
    quality: Sequence[StepQuality] = (),
    discrimination: Sequence[Discrimination] = (),
    seconds: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Return the summary as plain values, ready for ``write_json``.

    Args:
        measurements: with one aggregation per scorer (see ``bon.headline``).
        choices: of the aggregations, on dev tasks.
        paired: from ``bon.comparisons``.
        quality: from ``quality.step_quality``.
        discrimination: from ``discrimination.evaluate_discrimination``.
        seconds: stage → how long it took.

    Raises:
        ConfigError: if a scorer is there with several aggregations, or a bound is missing.
    """
    records = [m.record for m in measurements]
    rate = {r.strategy: r.success_rate for r in records if r.strategy in (GREEDY, SAMPLE_MEAN)}
    return {
        "policy": {"greedy": rate.get(GREEDY), "sample_mean": rate.get(SAMPLE_MEAN)},
        "evaluation": [asdict(record) for record in records],
        "oracle": {str(r.n): r.success_rate for r in records if r.strategy == ORACLE},
        "gap_closed": {
            scorer: {str(k): x for k, x in of_scorer.items()}
            for scorer, of_scorer in gap_closed(measurements).items()
        },
        "aggregation": {choice.scorer: asdict(choice) for choice in choices},
        "paired": [asdict(comparison) for comparison in paired],
        "quality": {q.scorer: q.as_json() for q in quality},
        "discrimination": {d.scorer: d.as_json() for d in discrimination},
        "seconds": dict(seconds or {}),
    }
