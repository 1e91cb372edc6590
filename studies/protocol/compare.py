"""Statistics over the records of several seeds: per-seed means, intervals, Holm, the detectable difference.

A comparison is made inside a unit, task by task. Over seeds, only the per-seed mean differences count. If the
environment has finitely many goals, the interval draws seeds and goals crossed, and is never narrower than
Student's t over the seeds: a bootstrap of few seeds is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlprm.functional.statistics.bootstrap import paired_interval
from rlprm.functional.statistics.crossed import crossed_interval
from rlprm.functional.statistics.holm import holm
from rlprm.functional.statistics.power import detectable_difference
from rlprm.functional.statistics.seeds import seed_interval
from studies.protocol.arms import REFERENCE
from studies.protocol.records import Record

PLANNED_SEEDS = 10
"""Of primary comparisons."""
LEVEL = 0.05
"""Chance of any false claim among the primary comparisons of one environment."""

_WIDTH = 1.96
"""Standard errors from the mean to the end of a 95 % interval of many seeds."""

Place = tuple[str, str]
"""Part of a record and name in it: ``("beam", "agentprm")``."""


@dataclass(frozen=True)
class Difference:
    """Success rate of one row minus that of another, in points."""

    name: str
    seeds: tuple[float, ...]
    """Mean difference over each seed's own tasks."""
    mean: float
    low: float
    high: float
    over: str
    """What the interval is over: ``tasks`` or ``goals`` (one run), ``seeds`` or ``seeds and goals``."""
    deviation: float | None
    """Standard deviation over seeds, with the luck of goals if all seeds share them; None for one seed."""
    p: float | None
    """Two-sided; None for one seed, which says nothing about others."""
    corrected: float | None = None
    """Holm's p value; None for an exploratory comparison."""


def successes(record: Record, place: Place) -> np.ndarray[Any, Any]:
    """Return the success of every task of a row."""
    part, name = place
    return np.asarray(record[part][name]["successes"], dtype=np.float64)


def rates(records: Sequence[Record], place: Place) -> list[float]:
    """Return the success rate of a row in each record, in %."""
    return [100.0 * float(successes(record, place).mean()) for record in records]


def difference(records: Sequence[Record], name: str, a: Place, b: Place) -> Difference:
    """Compare two rows of the same units, tasks paired, in points."""
    paired = [100.0 * (successes(record, a) - successes(record, b)) for record in records]
    of_seeds = tuple(float(values.mean()) for values in paired)
    goals = [record["goals"] for record in records]
    if len(records) == 1 and goals[0]:
        return Difference(
            name, of_seeds, *crossed_interval(*_by_goal(paired, goals))[:3], "goals", None, None
        )
    if len(records) == 1:
        first, second = successes(records[0], a), successes(records[0], b)
        mean, low, high = paired_interval(100.0 * first, 100.0 * second)
        return Difference(name, of_seeds, mean, low, high, "tasks", None, None)
    over_seeds = seed_interval(of_seeds)
    assert over_seeds is not None  # there are two seeds or more
    mean, low, high, deviation, p = over_seeds
    if not all(goals):
        return Difference(name, of_seeds, mean, low, high, "seeds", deviation, p)
    crossed = crossed_interval(*_by_goal(paired, goals))
    # In units of one seed, so that the detectable difference allows for the goals, too.
    with_goals = (crossed.high - crossed.low) / 2.0 / _WIDTH * math.sqrt(len(records))
    return Difference(
        name,
        of_seeds,
        crossed.mean,
        min(low, crossed.low),
        max(high, crossed.high),
        "seeds and goals",
        max(deviation, with_goals),
        max(p, crossed.p),
    )


def primary(records: Sequence[Record], arms: Mapping[str, str]) -> list[Difference]:
    """Return the primary comparisons of one environment: the reference minus each arm, at the endpoint.

    Args:
        records: of the group ``primary``.
        arms: name → what it changes.
    """
    endpoint = records[0]["endpoint"]
    found = [
        difference(records, f"AgentPRM − {about}", (endpoint, REFERENCE), (endpoint, arm))
        for arm, about in arms.items()
    ]
    p_values = {d.name: d.p for d in found if d.p is not None}
    corrected = holm(p_values)
    return [Difference(**{**vars(d), "corrected": corrected.get(d.name)}) for d in found]


def detectable(differences: Sequence[Difference]) -> dict[str, float]:
    """Return the difference of each comparison that is detected with a chance of 80 %, at Holm's worst level.

    With fewer seeds than planned, the answer is that of :data:`PLANNED_SEEDS` with today's deviation. Empty
    for one seed, which has no deviation.
    """
    return {
        d.name: detectable_difference(
            deviation=d.deviation, seeds=max(len(d.seeds), PLANNED_SEEDS), alpha=LEVEL / len(differences)
        )
        for d in differences
        if d.deviation is not None
    }


def _by_goal(
    paired: Sequence[np.ndarray[Any, Any]], goals: Sequence[Sequence[str]]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    names = sorted({goal for of_seed in goals for goal in of_seed})
    index = {goal: column for column, goal in enumerate(names)}
    sums, counts = np.zeros((len(paired), len(names))), np.zeros((len(paired), len(names)))
    for row, (values, of_seed) in enumerate(zip(paired, goals, strict=True)):
        columns = [index[goal] for goal in of_seed]
        np.add.at(sums[row], columns, values)
        np.add.at(counts[row], columns, 1)
    return sums, counts
