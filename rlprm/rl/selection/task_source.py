"""The tasks of a run in the order of its iterations, each with the numbers of its samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlprm import envs
from rlprm.rl.config import RLConfig
from rlprm.rl.schedule import ScheduledTask, tasks_at
from rlprm.rl.selection.difficulty import (
    known_success,
    segment_of,
    segment_since,
    success_by_task,
    tasks_by_difficulty,
)
from rlprm.types import Split, Task, Trajectory

__all__ = ["TaskSource"]


class TaskSource:
    """Finds the tasks at the places of the passes through a run's list.

    Args:
        config: of the run.
        journal: rows of the iterations so far, which grow; the order by difficulty follows from them.
    """

    def __init__(self, config: RLConfig, journal: Sequence[Mapping[str, Any]]) -> None:
        self.config, self._journal = config, journal
        self.num_tasks = config.num_tasks
        """Tasks of a pass."""
        if config.shuffle_tasks:
            self.num_tasks = envs.count_tasks(
                config.environment, Split.TRAIN, config.first_task, config.num_tasks, config.env_kwargs
            )
        self._numbers: dict[str, int] = {}

    def first_place(self, iteration: int, *, drawn_tasks: int) -> int:
        """Return where an iteration's tasks begin.

        Args:
            iteration: its number.
            drawn_tasks: tasks of all iterations before, further ones included.
        """
        return drawn_tasks if self.config.dynamic_sampling else iteration * self.config.tasks_per_iteration

    def jobs_at(self, places: range) -> list[tuple[Task, int]]:
        """Return the tasks at some places, each with the numbers of its samples."""
        config = self.config
        jobs = []
        for number, before in self._tasks_at(places):
            (task,) = envs.tasks(
                config.environment, Split.TRAIN, config.first_task + number, 1, config.env_kwargs
            )
            self._numbers[task.id] = number
            # A task that comes again gets other random numbers: its samples are numbered on.
            first = before * config.rollouts_per_task
            jobs += [(task, first + sample) for sample in range(config.rollouts_per_task)]
        return jobs

    def noted(self, trajectories: Sequence[Trajectory], places: range) -> dict[str, Any]:
        """Return what the journal must keep of an iteration, so that the order of later passes follows."""
        if not self.config.tasks_by_difficulty:
            return {}
        return {
            "places": [places.start, places.stop],
            "task_success": success_by_task(trajectories, self._numbers),
            "segment": segment_of(self._tasks_at(places), self._success_before),
        }

    def same_kind_since(self, iteration: int, places: range) -> int:
        """Return the iteration from which on tasks were as difficult as those at an iteration's places."""
        if not self.config.tasks_by_difficulty:
            return 0
        segment = segment_of(self._tasks_at(places), self._success_before)
        return segment_since(self._journal, segment, iteration)

    def _tasks_at(self, places: range) -> list[ScheduledTask]:
        config = self.config
        seed = config.seed if config.shuffle_tasks else None
        if not config.tasks_by_difficulty:
            return tasks_at(places, self.num_tasks, shuffle_seed=seed)
        return tasks_by_difficulty(
            places, self.num_tasks, shuffle_seed=seed, success_before=self._success_before
        )

    def _success_before(self, number: int) -> dict[int, float]:
        """Return the success of each task that was known when a pass began."""
        return known_success(self._journal, number * self.num_tasks)
