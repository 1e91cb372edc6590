"""How well single step scores separate success from failure, before any search uses them.

A pooled AUC also rewards recognising easy *tasks*. That does not help a search, whose
candidates compete within a task. The AUC within tasks is therefore reported, too.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from rlprm.errors import DataError
from rlprm.evaluation.pool import Pool
from rlprm.functional.metrics import (
    AUCPoint,
    Calibration,
    auc,
    auc_by_index,
    auc_by_relative_position,
    calibration,
)
from rlprm.types import StepScores

POSITIONS = 5
"""Bins of the relative position t / T."""
_MIDDLE = 2
"""The bin (0.4, 0.6]."""
SHARES = (0.25, 0.5, 0.75)
"""Of an episode's actions, after which its newest value is compared with the outcome."""


@dataclass(frozen=True)
class ForesightAUC:
    """How well one scorer's newest values foretell success when a share of an episode's actions is taken.

    The value of an episode of T actions is ``v_t`` with ``t = floor(share · T)``, and ``v_0`` if that is 0.
    The length of an episode is not known while the episode runs, so a score that tells the length profits:
    minus the number of actions so far (``shortest``) is far from 0.5 if length and success go together.
    :class:`RunningAUC` does not have this leak.
    """

    scorer: str
    share: float
    auc: float | None
    """Over all trajectories; None if all succeed or all fail."""
    auc_within_task: float | None
    """Mean over the tasks that have successes and failures; None if there is no such task."""
    tasks: int
    """How many tasks have both."""


@dataclass(frozen=True)
class RunningAUC:
    """How well one scorer's values foretell success after the same number of actions of every episode.

    The episodes are those with more than t actions, because the others have ended and need no foresight. That
    they go on is all that is known of their length. A score that depends on t alone (``shortest``) or on the
    end (``declared``) gives all of them one value, so that its AUC is 0.5 by construction.
    """

    scorer: str
    share: float
    """Of the mean length of the pool's episodes."""
    t: int
    """Actions: the share of the mean length, rounded, and at least 1."""
    auc: float | None
    """Of ``v_t`` over all episodes that are running; None if all of them succeed or all fail."""
    auc_within_task: float | None
    """Mean over the tasks that have successes and failures among their running episodes."""
    tasks: int
    """How many tasks have both."""
    episodes: int
    """How many are running."""


@dataclass(frozen=True)
class StepQuality:
    """Quality of one scorer's step values ``v_t`` on one pool."""

    scorer: str
    by_index: tuple[AUCPoint, ...]
    """AUC against success for each step index t, among trajectories that are at least that long."""
    by_position: tuple[AUCPoint, ...]
    """AUC in five equal bins of the relative position t / T."""
    mid_auc: float | None
    """AUC at relative positions in (0.4, 0.6]; None where all trajectories succeed or all fail."""
    mid_auc_within_task: float | None
    """The same within each task, averaged over the tasks that have successes and failures there."""
    calibration: Calibration | None
    """Of all step values against success; None where the scores do not claim to be probabilities."""
    trajectories: int
    """How many were scored."""
    unscored: int
    """How many could not be scored: they failed, or have no step."""

    def as_json(self) -> dict[str, Any]:
        """Return plain values with names."""
        return {
            **asdict(self),
            "by_index": [point._asdict() for point in self.by_index],
            "by_position": [point._asdict() for point in self.by_position],
            "calibration": None
            if self.calibration is None
            else {**self.calibration._asdict(), "bins": [b._asdict() for b in self.calibration.bins]},
        }


def step_quality(pool: Pool, scorer: str, *, calibrate: bool = True) -> StepQuality:
    """Measure a scorer's step values on a pool.

    Args:
        pool: scored by it.
        scorer: its name.
        calibrate: whether the scores claim to be probabilities of success; every step
            of every trajectory counts once, so long trajectories weigh more.

    Raises:
        ConfigError: if the scorer has not scored the pool.
        DataError: if it could score nothing.
    """
    rows = [
        [(s.values, t.outcome.success) for t, s in zip(row, scores, strict=True) if s is not None]
        for row, scores in zip(pool.trajectories, pool.scores_of(scorer), strict=True)
    ]
    values = [v for row in rows for v, _ in row]
    success = [won for row in rows for _, won in row]
    if not values:
        raise DataError(f"{scorer} could score none of the {len(pool.flat)} trajectories")
    by_position = tuple(auc_by_relative_position(values, success, bins=POSITIONS))
    within = [_mid_auc([v for v, _ in row], [won for _, won in row]) for row in rows]
    known = [auc for auc in within if auc is not None]
    return StepQuality(
        scorer=scorer,
        by_index=tuple(auc_by_index(values, success)),
        by_position=by_position,
        mid_auc=by_position[_MIDDLE].auc,
        mid_auc_within_task=math.fsum(known) / len(known) if known else None,
        calibration=_calibration(values, success) if calibrate else None,
        trajectories=len(values),
        unscored=len(pool.flat) - len(values),
    )


def foresight(pool: Pool, scorer: str) -> list[ForesightAUC]:
    """Measure a scorer's values after a quarter, a half and three quarters of an episode's actions.

    Raises:
        ConfigError: if the scorer has not scored the pool.
    """
    points = []
    for share in SHARES:
        rows = [[(_newest(s, share), won) for s, won in row] for row in _scored(pool, scorer)]
        overall, within, tasks = _aucs(rows)
        points.append(ForesightAUC(scorer, share, overall, within, tasks))
    return points


def running(pool: Pool, scorer: str) -> list[RunningAUC]:
    """Measure a scorer's values after fixed numbers of actions, among the episodes that are still running.

    The numbers are a quarter, a half and three quarters of the mean length of the pool's episodes.

    Raises:
        ConfigError: if the scorer has not scored the pool.
    """
    length = math.fsum(len(trajectory.steps) for trajectory in pool.flat) / len(pool.flat)
    points = []
    for share in SHARES:
        t = max(1, math.floor(share * length + 0.5))
        rows = [
            [(s.values[t - 1], won) for s, won in row if len(s.values) > t] for row in _scored(pool, scorer)
        ]
        overall, within, tasks = _aucs(rows)
        points.append(RunningAUC(scorer, share, t, overall, within, tasks, sum(map(len, rows))))
    return points


def _scored(pool: Pool, scorer: str) -> list[list[tuple[StepScores, bool]]]:
    """Return the scores and the success of every candidate that could be scored, task by task."""
    return [
        [(s, t.outcome.success) for t, s in zip(row, scores, strict=True) if s is not None]
        for row, scores in zip(pool.trajectories, pool.scores_of(scorer), strict=True)
    ]


def _aucs(rows: list[list[tuple[float, bool]]]) -> tuple[float | None, float | None, int]:
    """Return the AUC over all tasks, the mean within tasks, and how many tasks have an AUC."""
    known = [value for row in rows if (value := _auc(row)) is not None]
    within = math.fsum(known) / len(known) if known else None
    return _auc([pair for row in rows for pair in row]), within, len(known)


def _newest(scores: StepScores, share: float) -> float:
    t = math.floor(share * len(scores.values))
    return scores.values[t - 1] if t else scores.initial


def _auc(pairs: list[tuple[float, bool]]) -> float | None:
    return auc([value for value, _ in pairs], [won for _, won in pairs])


def _mid_auc(values: list[tuple[float, ...]], success: list[bool]) -> float | None:
    return auc_by_relative_position(values, success, bins=POSITIONS)[_MIDDLE].auc


def _calibration(values: list[tuple[float, ...]], success: list[bool]) -> Calibration:
    flat = [v for chain in values for v in chain]
    return calibration(flat, [won for chain, won in zip(values, success, strict=True) for _ in chain])
