"""One problem, a line of reasoning at a time."""

from __future__ import annotations

import copy
from types import ModuleType

from rlprm.envs.math import answers, flexible
from rlprm.envs.math.problems import FLEXIBLE, Problem, problem_of
from rlprm.errors import DemonstrationError
from rlprm.types import End, Outcome, StopReason, Task, Trajectory, Turn

__all__ = ["ROUND_LIMIT", "Reasoning", "answer", "demonstrate", "make"]

ROUND_LIMIT = 12
"""Turns of an episode; the longest solution of GSM8K has as many lines."""

_DEFINITION = "math: final answer equals the solution's"
_DEFINITION_FLEXIBLE = f"{_DEFINITION} (answers: flexible)"


def make(task: Task, *, end: End) -> Reasoning:
    """Build the environment of a task; an answer is declared by its nature, whatever the end is called.

    Raises:
        ConfigError: if the task is not one of this environment.
    """
    End(end)
    return Reasoning(problem_of(task))


def demonstrate(task: Task, *, end: End) -> list[str]:
    """Return the lines of the task's own solution, up to the first that declares an answer.

    Raises:
        DemonstrationError: where they do not fit into the round limit, or declare another answer first.
    """
    End(end)
    problem = problem_of(task)
    rule = _rule(problem)
    # One of GSM8K's solutions says "The answer is 8." before its last line.
    declared = (rule.extract(line, letters=problem.letters) is not None for line in problem.solution)
    lines = list(problem.solution[: next(count for count, is_last in enumerate(declared, 1) if is_last)])
    if len(lines) > ROUND_LIMIT:
        raise DemonstrationError(f"{task.id}: the solution has {len(lines)} lines, allowed: {ROUND_LIMIT}")
    if not rule.is_right(lines[-1], problem.answer, letters=problem.letters):
        raise DemonstrationError(f"{task.id}: the solution's line {lines[-1]!r} declares another answer")
    return lines


def answer(trajectory: Trajectory) -> str | None:
    """Return the final answer of an episode, equal answers as equal texts; None without one."""
    if not trajectory.steps:
        return None
    problem = problem_of(trajectory.task)
    rule = _rule(problem)
    found = rule.extract(trajectory.steps[-1].action, letters=problem.letters)
    return None if found is None else rule.canonical(found)


def _rule(problem: Problem) -> ModuleType:
    """Return the module whose functions read and judge the answers to a problem."""
    return flexible if problem.answers == FLEXIBLE else answers


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
            ConfigError: if an answer has to be compared by math-verify, which cannot be started.
        """
        if self._answered:
            raise RuntimeError("this episode is over")
        problem = self._problem
        rule = _rule(problem)
        if rule.extract(action, letters=problem.letters) is None:
            return Turn("", valid=bool(action.strip()))
        self._answered = True
        self._right = rule.is_right(action, problem.answer, letters=problem.letters)
        return Turn("", reward=float(self._right), stop=StopReason.DECLARED)

    def outcome(self) -> Outcome:
        """Judge the episode as it stands; without an answer it has failed."""
        definition = _DEFINITION_FLEXIBLE if self._problem.answers == FLEXIBLE else _DEFINITION
        return Outcome(float(self._right), self._right, definition)

    def fork(self) -> Reasoning:
        """Return an independent copy in the same state."""
        return copy.copy(self)
