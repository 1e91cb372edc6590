"""An environment in one file: a corridor of cells, in which the agent has to find out where to go.

One cell is the goal. A sign in another cell names it. The agent does not see the sign from where it starts:
it has to walk there, remember the goal, walk to it and write ``finish``. An agent may also guess.

    You are in cell 2.                          > left
    The goal is cell 4. You are in cell 1.      > right
    You are in cell 2.                          > right
    You are in cell 3.                          > right
    You are in cell 4.                          > finish

An environment is a module with two constants and four functions (``rlprm/envs/base.py``). This one is used by
its path or its dotted path: ``environment: examples/corridor.py`` or ``environment: examples.corridor``.
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
    """One walk.

    Args:
        goal: the cell to finish in.
        length: number of cells; there is a wall at both ends.
        end: who ends the episode.
        start: the cell in which the agent begins.
        sign: the cell in which the agent reads where the goal is, the first time it stands there.
    """

    def __init__(self, goal: int, length: int, end: End, *, start: int = 0, sign: int = 0) -> None:
        self.goal, self.length, self.end, self.cell, self.sign = goal, length, end, start, sign
        self.has_read = self.declared = False

    def reset(self) -> str:
        """Return the first observation."""
        return self._look()

    def step(self, action: str) -> Turn:
        """Move by one cell, or finish; any other text leaves the agent where it is."""
        if action == "finish" and self.end is End.DECLARED:
            self.declared = True
            return Turn("You are done.", stop=StopReason.DECLARED)
        target = self.cell + {"left": -1, "right": 1}.get(action, 0)
        if not 0 <= target < self.length:
            return Turn("There is a wall.")
        self.cell = target
        success = self.end is End.ON_SUCCESS and self.cell == self.goal
        return Turn(self._look(), float(success), StopReason.SUCCESS if success else None)

    def outcome(self) -> Outcome:
        """Judge the walk: 1 for the goal, and less the farther away the agent stops."""
        distance = abs(self.cell - self.goal)
        success = distance == 0 and (self.declared or self.end is End.ON_SUCCESS)
        score = 1.0 if success else 0.5 / (1 + distance)
        return Outcome(score, success, "corridor: at the goal when the episode ends")

    def fork(self) -> Self:
        """Return an independent copy; a beam search asks for it."""
        return copy(self)  # its state is a few numbers

    def _look(self) -> str:
        is_new = self.cell == self.sign and not self.has_read
        self.has_read = self.has_read or is_new
        return f"The goal is cell {self.goal}. " * is_new + f"You are in cell {self.cell}."


def tasks(
    split: Split,
    start: int,
    count: int,
    *,
    length: int = 5,
    first_cell: int = 2,
    sign: int = 1,
    **unknown: Any,
) -> list[Task]:
    """Return tasks; the goal of each is any cell but the first one, drawn with the task's own seed.

    There are as many different goals as cells but one: the splits have the same goals under other ids.

    Raises:
        ConfigError: for an unknown setting or a range that the split does not have.
    """
    if unknown:
        raise ConfigError(f"unknown settings {sorted(unknown)}; known: length, first_cell, sign")
    numbers = (length, first_cell, sign)
    if (
        not all(type(n) is int for n in numbers)
        or length < 2
        or not all(0 <= n < length for n in numbers[1:])
    ):
        raise ConfigError(
            f"length, first_cell, sign: got {numbers}, allowed: whole numbers, a length of 2 or more and two "
            "cells from 0 to below it"
        )
    if not 0 <= start <= start + count <= _COUNT:
        raise ConfigError(f"the split {split} has tasks 0 ... {_COUNT - 1}")
    found = []
    for index in range(start, start + count):
        drawn = int(np.random.default_rng(_FIRST_SEED[split] + index).integers(1, length))
        spec = {"goal": (first_cell + drawn) % length, "length": length, "start": first_cell, "sign": sign}
        found.append(Task(__name__, f"{split}-{index}", split, spec))
    return found


def make(task: Task, *, end: End) -> Corridor:
    """Build the environment of a task."""
    spec = task.spec
    return Corridor(spec["goal"], spec["length"], end, start=spec["start"], sign=spec["sign"])


def opening(*, end: End, style: str) -> list[Message]:
    """Return the messages that precede the first observation, in turns of user and assistant.

    Raises:
        ConfigError: for an unknown style.
    """
    if style not in ("none", "short", "agentgym"):
        raise ConfigError(f"prompt: got {style!r}, allowed: none, short, agentgym")
    if style == "none":
        return []
    text = f"Find the goal and stop there. Your actions are: {', '.join(ACTIONS)}."
    return [{"role": "user", "content": text}, {"role": "assistant", "content": "OK."}]


def demonstrate(task: Task, *, end: End) -> list[str]:
    """Return the expert's actions: to the sign, from there to the goal."""
    spec = task.spec
    walk = [*_moves(spec["start"], spec["sign"]), *_moves(spec["sign"], spec["goal"])]
    return [*walk, "finish"] if end is End.DECLARED else walk


def _moves(here: int, there: int) -> list[str]:
    return ["right"] * (there - here) + ["left"] * (here - there)
