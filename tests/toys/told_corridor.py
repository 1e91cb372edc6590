"""The corridor of the tests with a rule that reads transcripts, and with answers that compare."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rlprm.types import Split, Task, Trajectory
from tests.toys import corridor
from tests.toys.corridor import FIXED_PHRASES, ROUND_LIMIT, demonstrate, make, opening

__all__ = [
    "FIXED_PHRASES",
    "ROUND_LIMIT",
    "answer",
    "demonstrate",
    "make",
    "opening",
    "read_transcript",
    "tasks",
]


def tasks(split: Split, start: int, count: int, **env_kwargs: Any) -> list[Task]:
    return [replace(t, environment=__name__) for t in corridor.tasks(split, start, count, **env_kwargs)]


def read_transcript(start: str, turns: Sequence[tuple[str, str]]) -> list[float]:
    """Return 1 while the agent stands in the goal's cell."""
    goal = re.search(r"The goal is cell (\d+)", start)
    cell, believed = "0", []
    for _, answered in turns:
        seen = re.search(r"You are in cell (\d+)", answered)
        cell = seen[1] if seen else cell
        believed.append(float(goal is not None and cell == goal[1]))
    return believed


def answer(trajectory: Trajectory) -> str | None:
    """Return the number of steps to the right if the agent finished."""
    actions = [step.action for step in trajectory.steps]
    return str(actions.count("right") - actions.count("left")) if actions[-1:] == ["finish"] else None
