"""Learning rate, tasks and round limit as functions of the iteration.

So a run resumes without any stored schedule.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rlprm.errors import ConfigError

__all__ = [
    "LR_SCHEDULES",
    "ScheduledTask",
    "learning_rate_factor",
    "round_limit_at",
    "round_limit_since",
    "round_limits",
    "scheduled_tasks",
]

LR_SCHEDULES = ("constant", "linear", "cosine")


def learning_rate_factor(
    iteration: int,
    iterations: int,
    *,
    schedule: str,
    warmup: int = 0,
    minimum: float = 0.0,
    since: int = 0,
    start: float = 1.0,
) -> float:
    """Return the factor of the learning rate in an iteration (from 0).

    It rises over the first ``warmup`` iterations, ``(i + 1) / (warmup + 1)``, and then stays, or falls to
    ``minimum`` (a share) at what would be iteration ``iterations``, along a line or half a cosine.

    Args:
        iteration: from 0.
        iterations: of the run.
        schedule: one of ``LR_SCHEDULES``.
        warmup: number of iterations in which the factor rises.
        minimum: where the factor would end.
        since: iteration at which the number of iterations was last changed.
        start: factor of that iteration, from which the factor falls.
    """
    if iteration < warmup:
        return (iteration + 1) / (warmup + 1)
    if schedule == "constant":
        return 1.0
    first, top = (since, start) if since > warmup else (warmup, 1.0)
    gone = (iteration - first) / max(1, iterations - first)
    falling = 1.0 - gone if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * gone))
    return minimum + (top - minimum) * falling


class ScheduledTask(NamedTuple):
    """One task of an iteration."""

    number: int
    """Place of the task in the list, from 0."""
    before: int
    """Number of complete passes through the list before."""


def scheduled_tasks(
    iteration: int, per_iteration: int, num_tasks: int, *, shuffle_seed: int | None
) -> list[ScheduledTask]:
    """Return an iteration's tasks: passes through the list, one after another.

    Args:
        iteration: from 0.
        per_iteration: tasks of each iteration.
        num_tasks: length of the list.
        shuffle_seed: determines the order of each pass; None for the order of the list.
    """
    places = range(iteration * per_iteration, (iteration + 1) * per_iteration)
    passes = [divmod(place, num_tasks) for place in places]
    if shuffle_seed is None:
        return [ScheduledTask(place, before) for before, place in passes]
    return [ScheduledTask(_order(shuffle_seed, before, num_tasks)[place], before) for before, place in passes]


@functools.lru_cache(maxsize=2)
def _order(seed: int, before: int, num_tasks: int) -> list[int]:
    order = list(range(num_tasks))
    random.Random(f"{seed} {before}").shuffle(order)
    return order


def round_limits(schedule: Mapping[Any, Any]) -> Sequence[tuple[int, int]]:
    """Return (first iteration, limit) in order.

    Raises:
        ConfigError: unless all are whole numbers, the limits 1 or more, and one holds from iteration 0 on.
    """
    try:
        pairs = sorted((int(first), int(limit)) for first, limit in schedule.items())
    except (TypeError, ValueError):
        pairs = [(0, 0)]
    if pairs and (pairs[0][0] != 0 or any(limit < 1 for _, limit in pairs)):
        raise ConfigError(
            f"round_limits: got {dict(schedule)!r}, allowed: iterations and numbers of turns, with one for "
            "iteration 0, e.g. {0: 6, 40: 12}"
        )
    return pairs


def round_limit_at(iteration: int, schedule: Mapping[Any, Any], default: int | None) -> int | None:
    """Return the turns an episode may have in an iteration; ``default`` without a schedule."""
    limits = [limit for first, limit in round_limits(schedule) if first <= iteration]
    return limits[-1] if limits else default


def round_limit_since(iteration: int, schedule: Mapping[Any, Any]) -> int:
    """Return the iteration from which on the limit of an iteration has held."""
    return max((first for first, _ in round_limits(schedule) if first <= iteration), default=0)
