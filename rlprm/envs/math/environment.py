"""One problem, a line of reasoning at a time."""

from __future__ import annotations

import copy

from rlprm.envs.math.answers import canonical, extract, same
from rlprm.envs.math.problems import Problem, problem_of
from rlprm.errors import DemonstrationError
from rlprm.types import End, Outcome, StopReason, Task, Trajectory, Turn

__all__ = ["ROUND_LIMIT", "Reasoning", "answer", "demonstrate", "make"]

ROUND_LIMIT = 12
"""Turns of an episode; the longest solution of GSM8K has as many lines."""

_DEFINITION = "math: final answer equals the solution's"


def make(task: Task, *, end: End) -> Reasoning:
    """Build the environment of a task; an answer is declared by its nature, whatever the end is called.

    Raises:
        ConfigError: if the task is not one of this environment.
    """
    End(end)
    return Reasoning(problem_of(task))


def demonstrate(task: Task, *, end: End) -> list[str]:
    """Return the lines of the task's own solution.

    Raises:
        DemonstrationError: where they do not fit into the round limit.
    """
    End(end)
    lines = list(problem_of(task).solution)
    if len(lines) > ROUND_LIMIT:
        raise DemonstrationError(f"{task.id}: the solution has {len(lines)} lines, allowed: {ROUND_LIMIT}")
    return lines


def answer(trajectory: Trajectory) -> str | None:
    """Return the final answer of an episode, equal answers as equal texts; None without one."""
    if not trajectory.steps:
        return None
    found = extract(trajectory.steps[-1].action, letters=problem_of(trajectory.task).letters)
    return None if found is None else canonical(found)


class Reasoning:
    """One episode: the question, then nothing but the agent's own lines until one holds an answer."""

    __slots__ = ("_answered", "_problem", "_right")

    def __init__(self, problem: Problem) -> None:
        """Prepare an episode; ``reset`` begins it."""
        self._problem = problem
        self._answered = False
        self._right = False

    def reset(self) -> str:
        """Start the episode and return the question."""
        return self._problem.question

    def step(self, action: str) -> Turn:
        """Take a line of reasoning; one with a final answer ends the episode. Nothing is answered.

        Raises:
            RuntimeError: after the end of the episode.
        """
        if self._answered:
            raise RuntimeError("this episode is over")
        answer = extract(action, letters=self._problem.letters)
        if answer is None:
            return Turn("", valid=bool(action.strip()))
        self._answered = True
        self._right = same(answer, self._problem.answer)
        return Turn("", reward=float(self._right), stop=StopReason.DECLARED)

    def outcome(self) -> Outcome:
        """Judge the episode as it stands; without an answer it has failed."""
        return Outcome(float(self._right), self._right, _DEFINITION)

    def fork(self) -> Reasoning:
        """Return an independent copy in the same state."""
        return copy.copy(self)
