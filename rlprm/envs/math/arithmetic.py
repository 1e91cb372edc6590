"""Generated problems: chains of arithmetic on small whole numbers, in symbols or in words."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import Any, TypeVar

from rlprm.envs._splits import numbered
from rlprm.envs.math.answers import declaration
from rlprm.envs.math.problems import Problem
from rlprm.errors import ConfigError
from rlprm.types import Split, Task

__all__ = ["WORDINGS", "arithmetic_tasks", "chain", "problem", "split_of"]

T = TypeVar("T")
Operation = tuple[str, int]
"""One of ``+ - * /`` and its second operand."""

WORDINGS = ("symbolic", "worded", "both")
MOST_DEPTH = 11  # with the answer, as many lines as there are rounds

_LIMITS = (20, 10_000)
# Of ten chains: one is a test problem, one a dev problem, the others are for training.
_TENTHS = {0: Split.TEST, 1: Split.DEV}

_NAMES = ("Ann", "Ben", "Eve", "Ida", "Leo", "Max", "Pia", "Tom")
_THINGS = ("apples", "beads", "books", "cards", "coins", "nuts", "pens", "shells")
_SENTENCES = {
    "+": " {name} finds {operand} more.",
    "-": " {name} gives {operand} away.",
    "*": " {name} swaps them for {operand} times as many.",
    "/": " {name} keeps one of {operand} equal parts.",
}


def arithmetic_tasks(
    split: Split,
    start: int,
    count: int,
    *,
    depths: Sequence[int] = (3, 4, 5),
    largest: int = 20,
    operand: int = 9,
    wording: str = "symbolic",
) -> list[Task]:
    """Return generated tasks.

    Task ``i`` has ``depths[i % n]`` operations and seed ``base(split) + i // n``. Which split a chain
    belongs to is settled by a hash of its numbers and operations: the splits are disjoint, whatever the
    seeds and the words. The defaults are what a model of 0.3 million parameters learns in two minutes to
    get right about half of the time.

    Args:
        split: Which of the disjoint task lists.
        start: Index of the first task, at least 0.
        count: How many tasks, at least 0.
        depths: Numbers of operations, 1 to 11 each. There are few chains of depth 1, and with the default
            limits some thousand of depth 2: with them, tasks of a split repeat.
        largest: No number on the way is larger; 20 to 10,000.
        operand: Nor is any second operand larger than this; 2 up to ``largest``. With 9, every line adds,
            takes away, multiplies by or divides by a single digit.
        wording: ``"symbolic"``, ``"worded"`` or ``"both"``, drawn for each task.

    Raises:
        ConfigError: for an impossible setting or range.
    """
    kinds = _checked_depths(depths)
    _check_number("largest", largest, *_LIMITS)
    _check_number("operand", operand, 2, largest)
    if wording not in WORDINGS:
        raise ConfigError(f"math wording: got {wording!r}, allowed: {', '.join(WORDINGS)}")
    addresses = numbered("math", split, start, count, kinds=kinds, kind="depth")
    return [_task(split, depth, seed, (largest, operand), wording) for depth, seed in addresses]


def problem(first: int, operations: Sequence[Operation], *, about: tuple[str, str] | None = None) -> Problem:
    """Write a chain down: in words about somebody and their things, or in symbols."""
    name, things = about or ("", "")
    value, lines = first, []
    symbols, words = str(first), f"{name} has {first} {things}."
    for place, (sign, operand) in enumerate(operations):
        result = _apply(value, sign, operand)
        lines.append(f"{value} {sign} {operand} = {result}")
        symbols = f"{symbols} {sign} {operand}" if place == 0 else f"({symbols}) {sign} {operand}"
        words += _SENTENCES[sign].format(name=name, operand=operand)
        value = result
    question = f"{words} How many {things} does {name} have now?" if about else f"What is {symbols}?"
    return Problem(question, (*lines, declaration(str(value))), str(value))


def chain(draw: random.Random, depth: int, *, largest: int, operand: int) -> tuple[int, list[Operation]]:
    """Draw a first number and operations whose results all lie in ``1 ... largest``."""
    first = value = _between(draw, 2, largest)
    operations = []
    for _ in range(depth):
        possible = _operands(value, largest, operand)
        sign = _pick(draw, [sign for sign, numbers in possible.items() if numbers])
        number = _pick(draw, possible[sign])
        operations.append((sign, number))
        value = _apply(value, sign, number)
    return first, operations


def split_of(first: int, operations: Sequence[Operation]) -> Split:
    """Return the split a chain belongs to."""
    written = str(first) + "".join(f"{sign}{operand}" for sign, operand in operations)
    return _TENTHS.get(hashlib.sha256(written.encode()).digest()[0] % 10, Split.TRAIN)


def _task(split: Split, depth: int, seed: int, limits: tuple[int, int], wording: str) -> Task:
    largest, operand = limits
    draw = random.Random(f"{depth} {largest} {operand} {seed}")
    drawn = chain(draw, depth, largest=largest, operand=operand)
    while split_of(*drawn) is not split:
        drawn = chain(draw, depth, largest=largest, operand=operand)
    worded = wording == "worded" or (wording == "both" and draw.random() < 0.5)
    made = problem(*drawn, about=(_pick(draw, _NAMES), _pick(draw, _THINGS)) if worded else None)
    return made.task(f"arithmetic-{depth}-{largest}-{operand}-{wording}-{seed}", split)


def _operands(value: int, largest: int, operand: int) -> dict[str, Sequence[int]]:
    """Return the second operands that keep the result a whole number in ``1 ... largest``, by sign."""
    return {
        "+": range(1, min(operand, largest - value) + 1),
        "-": range(1, min(operand, value - 1) + 1),
        "*": range(2, min(operand, largest // value) + 1),
        "/": [number for number in range(2, min(operand, value) + 1) if value % number == 0],
    }


def _apply(value: int, sign: str, operand: int) -> int:
    return {"+": value + operand, "-": value - operand, "*": value * operand, "/": value // operand}[sign]


def _between(draw: random.Random, low: int, high: int) -> int:
    """Draw a number, both ends included; of the generator, only ``random()`` is promised to stay as it is."""
    return low + int(draw.random() * (high - low + 1))


def _pick(draw: random.Random, things: Sequence[T]) -> T:
    return things[_between(draw, 0, len(things) - 1)]


def _check_number(name: str, value: Any, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(f"math {name}: got {value!r}, allowed: whole numbers from {low} to {high}")


def _checked_depths(depths: Any) -> tuple[int, ...]:
    well_formed = not isinstance(depths, str) and isinstance(depths, Sequence) and len(depths) > 0
    if not well_formed or any(
        isinstance(d, bool) or not isinstance(d, int) or not 1 <= d <= MOST_DEPTH for d in depths
    ):
        raise ConfigError(f"math depths: got {depths!r}, allowed: a list of numbers from 1 to {MOST_DEPTH}")
    if len(set(depths)) < len(depths):
        raise ConfigError(f"math depths: got {list(depths)}, allowed: each number once")
    return tuple(sorted(depths))
