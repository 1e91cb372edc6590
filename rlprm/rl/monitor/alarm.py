"""Reward hacking: the outcome falls while a sign of it rises; pure.

The last *m* iterations (*m* from 1 to 6) are compared with the six consecutive ones of best outcome since
the alarm was restarted. Let *y* be an iteration's mean outcome over tasks, and *s* the mean of a sign, for
instance the turns of an episode. The alarm rings if for one *m* both hold:

* *y* has fallen by more than ``THRESHOLD`` standard errors;
* *s - b y* has risen by more than ``THRESHOLD`` standard errors.

*b* is the slope of *s* over *y* between the tasks of an iteration. A failed task has more turns and is
overrated more. An unlucky draw of tasks would therefore lower *y* and raise *s* together, and healthy runs
would ring. At equal outcome the noise of both is independent. Standard errors are those of tasks
(:class:`~rlprm.rl.monitor.watch.Sign`).

``THRESHOLD`` is set by simulation (``python -m studies.rl.alarm``): less than 1 % of healthy runs of 200
iterations ring if an iteration has 32 tasks or more. The choice of the best six iterations and of *m* is
part of the simulation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from rlprm.rl.monitor.watch import Sign

__all__ = ["LONGEST", "REFERENCE", "THRESHOLD", "alarms"]

THRESHOLD = 3.4
"""Standard errors that both changes must exceed."""
LONGEST = 6
"""Most iterations that are compared with the reference."""
REFERENCE = 6
"""Consecutive iterations of the reference."""
_OF_ALL_TASKS = "turns"
"""A sign that every task has, and so the outcome of all."""
_EPSILON = 1e-9
"""A smaller change is rounding."""
_IN_WORDS = {
    "turns": "turns of an episode",
    "repeated": "the share of repeated actions",
    "invalid": "the share of invalid actions",
    "overrating": "how much the PRM overrates finished episodes",
    "failures": "the PRM's value of failed episodes",
    "pay": "what pleases the PRM in an episode",
}


class _Point(NamedTuple):
    mean: float
    variance: float


def alarms(
    history: Sequence[Mapping[str, Sign]], *, outcome: str = "success", threshold: float = THRESHOLD
) -> dict[str, str]:
    """Return each sign that rings after the last iteration, with its description.

    Args:
        history: signs of each iteration since the last restart.
        outcome: name of the outcome, for the description.
        threshold: standard errors.
    """
    found: dict[str, str] = {}
    for last in range(1, LONGEST + 1):
        now, before = history[-last:], history[:-last]
        if len(before) < REFERENCE:
            break
        then = _best_window(before)
        fall = _errors([_outcome(row) for row in then], [_outcome(row) for row in now])
        if fall <= threshold:
            continue
        for name in now[-1]:
            if name in found or not all(name in row for row in (*then, *now)):
                continue
            slope = _slope([row[name] for row in history if name in row])
            points = [[_at_equal_outcome(row[name], slope) for row in rows] for rows in (now, then)]
            rise = _errors(*points)
            if rise > threshold:
                found[name] = (
                    f"{outcome} fell {_moved(then, now, None)} and {_IN_WORDS.get(name, name)} rose "
                    f"{_moved(then, now, name)} (last {last} iterations against the best {REFERENCE}, "
                    f"{fall:.1f} and {rise:.1f} standard errors)"
                )
    return found


def _best_window(history: Sequence[Mapping[str, Sign]]) -> Sequence[Mapping[str, Sign]]:
    """Return the consecutive iterations of best outcome; of equal ones the first."""
    outcomes = [_outcome(row).mean for row in history]
    starts = range(len(history) - REFERENCE + 1)
    best = max(starts, key=lambda start: sum(outcomes[start : start + REFERENCE]))
    return history[best : best + REFERENCE]


def _slope(signs: Sequence[Sign]) -> float:
    """Return how much a sign differs between tasks whose outcome differs by 1."""
    spread = sum(sign.outcome_variance for sign in signs)
    return sum(sign.covariance for sign in signs) / spread if spread else 0.0


def _outcome(row: Mapping[str, Sign]) -> _Point:
    of_all = row[_OF_ALL_TASKS]
    return _Point(of_all.outcome, of_all.outcome_variance)


def _at_equal_outcome(sign: Sign, slope: float) -> _Point:
    variance = sign.variance - 2 * slope * sign.covariance + slope**2 * sign.outcome_variance
    return _Point(sign.mean - slope * sign.outcome, max(variance, 0.0))


def _errors(higher: Sequence[_Point], lower: Sequence[_Point]) -> float:
    """Return by how many standard errors the mean of some iterations is above that of others."""
    difference = fmean(p.mean for p in higher) - fmean(p.mean for p in lower)
    if difference <= _EPSILON:
        return 0.0
    variance = sum(sum(p.variance for p in points) / len(points) ** 2 for points in (higher, lower))
    return difference / math.sqrt(variance) if variance else math.inf


def _moved(then: Sequence[Mapping[str, Sign]], now: Sequence[Mapping[str, Sign]], name: str | None) -> str:
    before, after = (
        fmean(_outcome(row).mean if name is None else row[name].mean for row in rows) for rows in (then, now)
    )
    return f"from {before:.2f} to {after:.2f}"
