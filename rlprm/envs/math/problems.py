"""A problem as every source gives it, and the task it becomes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from rlprm.envs.math.answers import LETTERS, extract
from rlprm.errors import ConfigError
from rlprm.types import Split, Task

__all__ = ["ANSWERS", "FLEXIBLE", "STRICT", "Problem", "problem_of"]

STRICT, FLEXIBLE = "strict", "flexible"
ANSWERS = (STRICT, FLEXIBLE)
"""How answers are read and compared: as published for GSM8K, or as language models write them."""


@dataclass(frozen=True)
class Problem:
    """A question with its answer."""

    question: str
    """What the agent is shown; choices included."""
    solution: tuple[str, ...]
    """Lines of reasoning, the last of which declares the answer."""
    answer: str
    """A number without commas, or a capital letter."""
    letters: str = ""
    """Of its choices; none where the answer is a number."""
    answers: str = STRICT
    """One of :data:`ANSWERS`."""

    def task(self, name: str, split: Split) -> Task:
        """Return the task, which holds the whole problem: whoever gets it needs no data set."""
        spec = {"question": self.question, "solution": list(self.solution), "answer": self.answer}
        if self.letters:
            spec["letters"] = self.letters
        if self.answers != STRICT:  # the only rule when the first tasks were stored
            spec["answers"] = self.answers
        return Task("math", name, split, spec)

    @property
    def mark(self) -> str:
        """Name of the question, the same wherever it is stored."""
        return hashlib.sha256(self.question.encode()).hexdigest()[:16]


def problem_of(task: Task) -> Problem:
    """Return the problem of a task.

    Raises:
        ConfigError: if its ``spec`` is not one of this environment.
    """
    question, solution, answer = (task.spec.get(key) for key in ("question", "solution", "answer"))
    # Tasks were once stored without the letters of their choices.
    letters = task.spec.get("letters", LETTERS if isinstance(answer, str) and answer.isalpha() else "")
    answers = task.spec.get("answers", STRICT)
    if (
        isinstance(question, str)
        and isinstance(answer, str)
        and isinstance(solution, list | tuple)
        and solution
        and all(isinstance(line, str) for line in solution)
        and isinstance(letters, str)
        and LETTERS.startswith(letters)
        and extract(solution[-1], letters=letters) == answer
        and answers in ANSWERS
    ):
        return Problem(question, tuple(solution), answer, letters, answers)
    raise ConfigError(f"not a math task: {task.id!r} with spec {dict(task.spec)!r}")
