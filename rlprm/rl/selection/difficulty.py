"""A curriculum by difficulty: from the second pass on, tasks of middling success come first; pure.

A task that always or never succeeds has little to teach an estimator that compares its rollouts. The order of
a pass follows from the success that the run's own journal has of each task when the pass begins: first those
of 20 to 80 %, then those that were never run, then the others, each in the order they would have without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rlprm.rl.schedule import ScheduledTask, pass_order
from rlprm.types import Trajectory

__all__ = ["known_success", "segment_of", "segment_since", "success_by_task", "tasks_by_difficulty"]

_LOW, _HIGH = 0.2, 0.8
_MIDDLING, _UNKNOWN, _OTHER = range(3)
SuccessBefore = Callable[[int], Mapping[int, float]]
"""Number of a pass → success of each task that was known when it began."""


def success_by_task(trajectories: Iterable[Trajectory], numbers: Mapping[str, int]) -> dict[str, float]:
    """Return the share of successes of each task's episodes, by the task's number, as the journal keeps it.

    Args:
        trajectories: of an iteration, without the failed ones.
        numbers: place in the list of each task id.
    """
    found: dict[str, list[float]] = {}
    for t in trajectories:
        found.setdefault(str(numbers[t.task.id]), []).append(float(t.outcome.success))
    return {number: sum(of_task) / len(of_task) for number, of_task in found.items()}


def known_success(rows: Iterable[Mapping[str, Any]], first_place: int) -> dict[int, float]:
    """Return the last known success of each task before the iteration that reached a place.

    Args:
        rows: of the journal, in order, with ``places`` (first, one past the last) and ``task_success``.
        first_place: where the pass begins.
    """
    found: dict[int, float] = {}
    for row in rows:
        if row["places"][1] > first_place:
            break
        found |= {int(number): success for number, success in row["task_success"].items()}
    return found


def tasks_by_difficulty(
    places: range, num_tasks: int, *, shuffle_seed: int | None, success_before: SuccessBefore
) -> list[ScheduledTask]:
    """Return the tasks at some places of the passes, each pass in its order; see ``schedule.tasks_at``."""
    orders: dict[int, list[int]] = {}
    found = []
    for before, place in (divmod(place, num_tasks) for place in places):
        if before not in orders:
            success = success_before(before)
            plain = pass_order(shuffle_seed, before, num_tasks)
            orders[before] = sorted(plain, key=lambda number: _kind(success.get(number)))
        found.append(ScheduledTask(orders[before][place], before))
    return found


def segment_of(tasks: Sequence[ScheduledTask], success_before: SuccessBefore) -> list[int]:
    """Return pass and kind of the first and of the last task: iterations of another segment are harder."""
    ends = (tasks[0], tasks[-1])
    return [x for t in ends for x in (t.before, _kind(success_before(t.before).get(t.number)))]


def segment_since(rows: Sequence[Mapping[str, Any]], segment: Sequence[int], iteration: int) -> int:
    """Return the iteration from which on all had the segment of the present one."""
    since = iteration
    for row in reversed(rows):
        if list(row.get("segment", ())) != list(segment):
            break
        since = row["iteration"]
    return since


def _kind(success: float | None) -> int:
    if success is None:
        return _UNKNOWN
    return _MIDDLING if _LOW <= success <= _HIGH else _OTHER
