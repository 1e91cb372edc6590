"""A corridor of cells: walk to the marked one, then say ``finish``.

The agent starts in cell 0. ``right`` and ``left`` move by one (a wall stops them).
``pit`` ends the episode as a failure, ``crash`` raises, anything else does nothing.
Each action costs one unit of ``spec["budget"]`` where that is set, and ``sleep`` all
of it. Usable by its dotted path, ``tests.toys.corridor``.
"""

from __future__ import annotations

from copy import copy
from typing import Any, Self

import numpy as np

from rlprm.errors import ConfigError
from rlprm.types import End, Message, Outcome, Split, StopReason, Task, Turn

ROUND_LIMIT = 6
FIXED_PHRASES = ("You are in cell", "The goal is cell", "There is a wall.", "You are done.")
ACTIONS = ("left", "right", "finish")
_FIRST_SEED = {Split.TRAIN: 0, Split.DEV: 10_000, Split.TEST: 20_000}
_COUNT = 10_000


class Corridor:
    """One walk."""

    def __init__(self, goal: int, length: int, budget: int | None, end: End) -> None:
        self.goal, self.length, self.budget, self.end = goal, length, budget, end
        self.cell = 0
        self.actions = 0
        self.declared = False

    def reset(self) -> str:
        return f"The goal is cell {self.goal}. You are in cell {self.cell}."

    def step(self, action: str) -> Turn:
        self.actions += 1
        if action == "crash":
            raise RuntimeError("the corridor collapsed")
        if action == "pit":
            return Turn("You fell.", stop=StopReason.FAILURE)
        if action == "finish" and self.end is End.DECLARED:
            self.declared = True
            return Turn("You are done.", stop=StopReason.DECLARED)
        target = self.cell + {"left": -1, "right": 1}.get(action, 0)
        wall = not 0 <= target < self.length
        self.cell = self.cell if wall else target
        observation = "There is a wall." if wall else f"You are in cell {self.cell}."
        if self.end is End.ON_SUCCESS and self.cell == self.goal:
            return Turn(observation, reward=1.0, stop=StopReason.SUCCESS)
        spent = self.budget is not None and (action == "sleep" or self.actions >= self.budget)
        return Turn(observation, stop=StopReason.ENV_LIMIT if spent else None)

    def outcome(self) -> Outcome:
        there = self.cell == self.goal
        success = there and (self.declared or self.end is End.ON_SUCCESS)
        distance = abs(self.cell - self.goal)
        return Outcome(
            1.0 if success else 0.5 / (1 + distance), success, "corridor: at the goal when the episode ends"
        )

    def fork(self) -> Self:
        return copy(self)  # its state is a few numbers


def tasks(
    split: Split, start: int, count: int, *, length: int = 4, budget: int | None = None, **unknown: Any
) -> list[Task]:
    if unknown:
        raise ConfigError(f"unknown settings {sorted(unknown)}; known: length, budget")
    if not 0 <= start <= start + count <= _COUNT:
        raise ConfigError(f"the split {split} has tasks 0 ... {_COUNT - 1}")
    goals = [
        int(np.random.default_rng(_FIRST_SEED[split] + index).integers(1, length))
        for index in range(start, start + count)
    ]
    return [
        Task(
            environment=__name__,
            id=f"{split}-{start + offset}",
            split=split,
            spec={"goal": goal, "length": length, "budget": budget},
        )
        for offset, goal in enumerate(goals)
    ]


def make(task: Task, *, end: End) -> Corridor:
    return Corridor(task.spec["goal"], task.spec["length"], task.spec.get("budget"), end)


def opening(*, end: End, style: str) -> list[Message]:
    return [] if style == "none" else [{"role": "system", "content": "Walk to the goal."}]


def demonstrate(task: Task, *, end: End) -> list[str]:
    walk = ["right"] * int(task.spec["goal"])
    return [*walk, "finish"] if end is End.DECLARED else walk
