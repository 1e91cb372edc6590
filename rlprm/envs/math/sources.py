"""Where problems come from, and their splits."""

from __future__ import annotations

import functools
import re
import reprlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from rlprm.components import check_kwargs
from rlprm.envs._checks import encodable
from rlprm.envs.math.answers import LETTERS, declaration, extract
from rlprm.envs.math.arithmetic import arithmetic_tasks
from rlprm.envs.math.problems import ANSWERS, FLEXIBLE, STRICT, Problem
from rlprm.envs.math.records import Rows, read_rows
from rlprm.errors import ConfigError, DataError
from rlprm.types import Split, Task

__all__ = ["GSM8K", "MMLU", "SOURCES", "split_problems", "tasks"]

GSM8K = "openai/gsm8k"
MMLU = "cais/mmlu"

_ANNOTATION = re.compile(r"<<[^<>]*>>")
_SHARE = 10  # one problem in so many is taken for a split that the data set does not have


def tasks(
    split: Split,
    start: int,
    count: int,
    *,
    source: str = "arithmetic",
    answers: str = FLEXIBLE,
    **settings: Any,
) -> list[Task]:
    """Return tasks ``start ... start + count - 1`` of a split; the same arguments give the same tasks.

    Args:
        split: Which of the disjoint task lists.
        start: Index of the first task, at least 0.
        count: How many tasks, at least 0.
        source: One of :data:`SOURCES`.
        answers: How final answers are read and compared: ``"flexible"`` as in
            :mod:`rlprm.envs.math.flexible`, ``"strict"`` as in :mod:`rlprm.envs.math.answers`.
        settings: Those of the source, see :func:`arithmetic_tasks`, :func:`gsm8k_tasks` and
            :func:`multiple_choice_tasks`.

    Raises:
        ConfigError: for an unknown source or setting, data that is not there, or a range the
            split does not have.
        DataError: for damaged data.
    """
    if not isinstance(source, str) or source not in SOURCES:
        raise ConfigError(f"math source: got {source!r}, allowed: {', '.join(SOURCES)}")
    if not isinstance(answers, str) or answers not in ANSWERS:
        raise ConfigError(f"math answers: got {answers!r}, allowed: {', '.join(ANSWERS)}")
    check_kwargs(SOURCES[source], settings, f"the math source {source}")
    found = SOURCES[source](Split(split), start, count, **settings)
    if answers == STRICT:
        return found
    return [replace(task, spec={**task.spec, "answers": answers}) for task in found]


def gsm8k_tasks(
    split: Split,
    start: int,
    count: int,
    *,
    data: str = GSM8K,
    subset: str | None = None,
    annotations: bool = False,
) -> list[Task]:
    """Return problems of GSM8K's form: ``question``, and ``answer`` with lines and ``#### 24`` at the end.

    Args:
        split: Which of the disjoint task lists.
        start: Index of the first task, at least 0.
        count: How many tasks, at least 0.
        data: File, folder or hub id, see :func:`rlprm.envs.math.records.read_rows`.
        subset: The hub's name of a configuration; ``main`` for GSM8K itself.
        annotations: Whether solutions keep their calculator annotations (``<<48/2=24>>``).

    Raises:
        ConfigError: for data that is not there, or a range the split does not have.
        DataError: for damaged data.
    """
    if not isinstance(annotations, bool):
        raise ConfigError(f"math annotations: got {annotations!r}, allowed: true, false")
    problems = _problems(_gsm8k if annotations else _gsm8k_without_annotations, data, subset, {GSM8K: "main"})
    return _tasks_of("gsm8k", problems, split, start, count)


def multiple_choice_tasks(
    split: Split, start: int, count: int, *, data: str = MMLU, subset: str | None = None
) -> list[Task]:
    """Return problems of MMLU's form: ``question``, ``choices``, and ``answer`` as an index or a letter.

    Choices are a list of texts; ARC's, an object of texts and labels, are refused.

    A solution is the answer alone: the data set has no reasoning.

    Args:
        split: Which of the disjoint task lists.
        start: Index of the first task, at least 0.
        count: How many tasks, at least 0.
        data: File, folder or hub id, see :func:`rlprm.envs.math.records.read_rows`.
        subset: The hub's name of a configuration, for instance a subject; ``all`` for MMLU itself.

    Raises:
        ConfigError: for data that is not there, or a range the split does not have.
        DataError: for damaged data.
    """
    problems = _problems(_multiple_choice, data, subset, {MMLU: "all"})
    return _tasks_of("multiple_choice", problems, split, start, count)


SOURCES: dict[str, Callable[..., list[Task]]] = {
    "arithmetic": arithmetic_tasks,
    "gsm8k": gsm8k_tasks,
    "multiple_choice": multiple_choice_tasks,
}


def split_problems(rows: dict[Split, Iterable[Problem]]) -> dict[Split, tuple[Problem, ...]]:
    """Return the problems of each split, none of which is in two.

    A question that was there before is dropped, where test goes before dev and dev before train. If there
    is no dev or test part, a tenth of the train problems becomes one: those whose questions have the
    smallest hashes, so that neither their order in the file nor added ones move many.
    """
    seen: set[str] = set()
    by_split: dict[Split, list[Problem]] = {split: [] for split in Split}
    for split in (Split.TEST, Split.DEV, Split.TRAIN):
        for problem in rows.get(split, ()):
            if problem.question not in seen:
                seen.add(problem.question)
                by_split[split].append(problem)
    share = -(-len(by_split[Split.TRAIN]) // _SHARE)
    for split in (Split.TEST, Split.DEV):
        if split not in rows:
            taken = set(sorted(problem.mark for problem in by_split[Split.TRAIN])[:share])
            by_split[split] = [problem for problem in by_split[Split.TRAIN] if problem.mark in taken]
            by_split[Split.TRAIN] = [
                problem for problem in by_split[Split.TRAIN] if problem.mark not in taken
            ]
    return {split: tuple(problems) for split, problems in by_split.items()}


def _problems(
    read: Callable[[Any], Problem], data: Any, subset: Any, subsets: dict[str, str]
) -> dict[Split, tuple[Problem, ...]]:
    for name, value in (("data", data), ("subset", subset)):
        if not isinstance(value, str) and (name == "data" or value is not None):
            raise ConfigError(f"math {name}: got {value!r}, allowed: a text")
    return _read(read, data, subset or subsets.get(data))


@functools.lru_cache(maxsize=8)
def _read(read: Callable[[Any], Problem], data: str, subset: str | None) -> dict[Split, tuple[Problem, ...]]:
    parts = read_rows(data, subset)
    return split_problems({split: _each(read, rows) for split, rows in parts.items()})


def _each(read: Callable[[Any], Problem], rows: Rows) -> Iterable[Problem]:
    for place, row in rows:
        try:
            problem = read(row)
            encodable("\n".join((problem.question, *problem.solution)))
            yield problem
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{place} is not a problem of this form: {error!r}") from error


def _gsm8k(row: Any) -> Problem:
    lines = [line.strip() for line in row["answer"].split("\n") if line.strip()]
    answer = extract(lines[-1]) if lines else None
    if not row["question"].strip() or answer is None or any(extract(line) for line in lines[:-1]):
        raise ValueError("it needs a question, and a last line '#### <number>' of the answer, and no other")
    return Problem(row["question"].strip(), (*lines[:-1], declaration(answer)), answer)


def _gsm8k_without_annotations(row: Any) -> Problem:
    return _gsm8k({**row, "answer": _ANNOTATION.sub("", row["answer"])})


def _multiple_choice(row: Any) -> Problem:
    question, choices, answer = row["question"].strip(), row["choices"], row["answer"]
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise ValueError(f"choices {reprlib.repr(choices)} is not a list of texts")
    if not question or not 2 <= len(choices) <= len(LETTERS):
        raise ValueError(f"it needs a question and 2 to {len(LETTERS)} choices")
    letters = LETTERS[: len(choices)]
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(letters):
        answer = letters[answer]
    if not isinstance(answer, str) or answer not in list(letters):
        raise ValueError(f"answer {reprlib.repr(answer)} is neither an index nor a letter of its choices")
    listed = "\n".join(f"{letter}. {choice}" for letter, choice in zip(letters, choices, strict=True))
    return Problem(f"{question}\n{listed}", (declaration(answer),), answer, letters)


def _tasks_of(
    source: str, problems: dict[Split, tuple[Problem, ...]], split: Split, start: int, count: int
) -> list[Task]:
    if start < 0 or count < 0:
        raise ConfigError(f"math tasks: start and count must be at least 0, got {start} and {count}")
    there = problems[split]
    if start + count > len(there):
        raise ConfigError(
            f"math tasks: the {split.value} split of {source} has {len(there)} tasks; "
            f"{start} ... {start + count - 1} reaches past its end"
        )
    return [problem.task(f"{source}-{problem.mark}", split) for problem in there[start : start + count]]
