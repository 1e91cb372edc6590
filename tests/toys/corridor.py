"""The corridor of the examples, with its sign in the first cell, and with faults.

``pit`` ends the episode as a failure, ``crash`` raises. Each action costs one unit of
``spec["budget"]`` where that is set, and ``sleep`` all of it. Usable by its dotted path,
``tests.toys.corridor``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from examples import corridor
from examples.corridor import ACTIONS, FIXED_PHRASES, ROUND_LIMIT
from rlprm.errors import ConfigError
from rlprm.types import End, Message, Split, StopReason, Task, Turn

__all__ = [
    "ACTIONS",
    "FIXED_PHRASES",
    "ROUND_LIMIT",
    "Corridor",
    "demonstrate",
    "jobs",
    "make",
    "opening",
    "tasks",
]


class Corridor(corridor.Corridor):
    """One walk from cell 0, with faults."""

    def __init__(self, goal: int, length: int, budget: int | None, end: End) -> None:
        super().__init__(goal, length, end)
        self.budget, self.actions = budget, 0

    def step(self, action: str) -> Turn:
        self.actions += 1
        if action == "crash":
            raise RuntimeError("the corridor collapsed")
        if action == "pit":
            return Turn("You fell.", stop=StopReason.FAILURE)
        turn = super().step(action)
        spent = self.budget is not None and (action == "sleep" or self.actions >= self.budget)
        return replace(turn, stop=StopReason.ENV_LIMIT) if spent and turn.stop is None else turn


def tasks(
    split: Split, start: int, count: int, *, length: int = 4, budget: int | None = None, **unknown: Any
) -> list[Task]:
    if unknown:
        raise ConfigError(f"unknown settings {sorted(unknown)}; known: length, budget")
    found = corridor.tasks(split, start, count, length=length, first_cell=0, sign=0)
    return [
        replace(
            task, environment=__name__, spec={"goal": task.spec["goal"], "length": length, "budget": budget}
        )
        for task in found
    ]


def make(task: Task, *, end: End) -> Corridor:
    return Corridor(task.spec["goal"], task.spec["length"], task.spec.get("budget"), end)


def opening(*, end: End, style: str) -> list[Message]:
    return [] if style == "none" else [{"role": "system", "content": "Walk to the goal."}]


def demonstrate(task: Task, *, end: End) -> list[str]:
    walk = ["right"] * int(task.spec["goal"])
    return [*walk, "finish"] if end is End.DECLARED else walk


def jobs(count: int = 3, samples: int = 4) -> list[tuple[Task, int]]:
    """Return several samples of each of the first tasks."""
    return [(task, i) for task in tasks(Split.TRAIN, 0, count) for i in range(samples)]
