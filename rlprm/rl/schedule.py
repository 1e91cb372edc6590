"""Learning rate, tasks and round limit as functions of the iteration.

So a run resumes without any stored schedule.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rlprm.errors import ConfigError

__all__ = [
    "LR_SCHEDULES",
    "TaskRange",
    "learning_rate_factor",
    "round_limit_at",
    "round_limits",
    "scheduled_tasks",
]

LR_SCHEDULES = ("constant", "linear", "cosine")


def learning_rate_factor(
    iteration: int, iterations: int, *, schedule: str, warmup: int = 0, minimum: float = 0.0
) -> float:
    """Return the factor of the learning rate in an iteration (from 0).

    It rises over the first ``warmup`` iterations, ``(i + 1) / (warmup + 1)``, and then stays, or falls to
    ``minimum`` (a share) at what would be iteration ``iterations``, along a line or half a cosine.
    """
    if iteration < warmup:
        return (iteration + 1) / (warmup + 1)
    if schedule == "constant":
        return 1.0
    gone = (iteration - warmup) / max(1, iterations - warmup)
    falling = 1.0 - gone if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * gone))
    return minimum + (1.0 - minimum) * falling


class TaskRange(NamedTuple):
    """Tasks that follow one another in the list."""

    first: int
    number: int
    before: int
    """Number of complete passes through the list before."""


def scheduled_tasks(iteration: int, per_iteration: int, num_tasks: int) -> Iterator[TaskRange]:
    """Yield an iteration's tasks: in order through the list, and again from its start."""
    place, end = iteration * per_iteration, (iteration + 1) * per_iteration
    while place < end:
        before, first = divmod(place, num_tasks)
        count = min(end - place, num_tasks - first)
        yield TaskRange(first, count, before)
        place += count


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
