"""The goals, their splits by item, and the tasks made of them."""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from rlprm.envs._splits import numbered
from rlprm.envs.textcraft.book import RecipeBook, load_book
from rlprm.errors import ConfigError
from rlprm.types import Split, Task

__all__ = ["DEFAULT_DEPTHS", "commands", "split_goals", "task_address", "tasks"]

T = TypeVar("T")

DEFAULT_DEPTHS: tuple[int, ...] = (1, 2, 3, 4)
"""All that Minecraft's recipes have."""

MOST_DISTRACTORS = 10
"""Commands that do not lead to the goal, AgentGym's number."""

# By depth, those of AgentGym's test set. The dev split is as large; the rest is for training.
_TEST_GOALS = {1: 31, 2: 41, 3: 25, 4: 3}
_SPLIT_SEED = 20231108


def tasks(
    split: Split,
    start: int,
    count: int,
    *,
    depths: Sequence[int] = DEFAULT_DEPTHS,
    recipes: str | None = None,
    **unknown: Any,
) -> list[Task]:
    """Return tasks ``start ... start + count - 1`` of a split; the same arguments give the same tasks.

    Task ``i`` is goal ``i % n`` of the split's ``n`` goals, with seed ``base(split) + i // n``
    for the order of the commands and the distractors among them. No goal is in two splits; only
    where there are too few for that (below 3 of a depth) does a split without any take them all.

    Args:
        split: Which of the disjoint task lists.
        start: Index of the first task, at least 0.
        count: How many tasks, at least 0.
        depths: How deep the recipe tree of a goal may be, without repetition.
        recipes: Folder of Minecraft recipe files; None for Minecraft 1.16.5.
        unknown: Nothing; any other setting is an error.

    Raises:
        ConfigError: for an unknown setting, depths that no goal has, a folder without
            recipes, or a range the split does not have.
        DataError: for a damaged recipe file.
    """
    if unknown:
        raise ConfigError(f"unknown textcraft setting {sorted(unknown)}; there are 'depths' and 'recipes'")
    if recipes is not None and not isinstance(recipes, str):
        raise ConfigError(f"textcraft recipes must be the path of a folder or null, got {recipes!r}")
    split = Split(split)
    goals = split_goals(recipes, _checked_depths(depths))[split]
    addresses = numbered("textcraft", split, start, count, kinds=goals, kind="goal")
    return [_task(split, goal, seed, recipes) for goal, seed in addresses]


@functools.lru_cache(maxsize=64)
def split_goals(recipes: str | None, depths: tuple[int, ...]) -> dict[Split, tuple[str, ...]]:
    """Return the goals of each split, in the order of its tasks.

    Which split a goal belongs to depends on its depth only, not on the other depths asked for.
    """
    book = load_book(recipes)
    by_split: dict[Split, list[str]] = {split: [] for split in Split}
    for depth in depths:
        goals = _shuffled(
            (item for item in book.recipes if book.depth[item] == depth), f"{_SPLIT_SEED} {depth}"
        )
        quota = min(_TEST_GOALS.get(depth, len(goals)), len(goals) // 3)
        by_split[Split.TEST] += goals[:quota]
        by_split[Split.DEV] += goals[quota : 2 * quota]
        by_split[Split.TRAIN] += goals[2 * quota :]
    every = [goal for split in Split for goal in by_split[split]]
    if not every:
        known = sorted({book.depth[item] for item in book.recipes})
        raise ConfigError(f"textcraft depths: no goal has a depth in {list(depths)}; there are {known}")
    return {
        split: tuple(_shuffled(sorted(by_split[split] or every), f"{_SPLIT_SEED} {split.value}"))
        for split in Split
    }


def task_address(task: Task) -> tuple[RecipeBook, str, int]:
    """Return recipe book, goal and seed of a task.

    Raises:
        ConfigError: if its ``spec`` is not one of this environment.
    """
    goal, seed, folder = (task.spec.get(key) for key in ("goal", "seed", "recipes"))
    if (
        isinstance(goal, str)
        and isinstance(seed, int)
        and not isinstance(seed, bool)
        and (folder is None or isinstance(folder, str))
        and goal in (book := load_book(folder)).recipes
    ):
        return book, goal, seed
    raise ConfigError(f"not a textcraft task: {task.id!r} with spec {dict(task.spec)!r}")


def commands(book: RecipeBook, goal: str, seed: int) -> list[str]:
    """Return the crafting commands that a task shows: all that can lead to the goal, and distractors."""
    leading, related = book.surroundings(goal)
    generator = random.Random(seed)
    distractors = _shuffled(related, generator)[:MOST_DISTRACTORS]
    return _shuffled([*leading, *distractors], generator)


def _shuffled(things: Iterable[T], seed: random.Random | str) -> list[T]:
    """Shuffle by random keys: of the generator, only ``random()`` is promised to stay as it is."""
    draw = (random.Random(seed) if isinstance(seed, str) else seed).random
    keyed = [(draw(), place, thing) for place, thing in enumerate(things)]
    keyed.sort(key=lambda entry: entry[:2])
    return [thing for _, _, thing in keyed]


def _checked_depths(depths: Any) -> tuple[int, ...]:
    well_formed = not isinstance(depths, str) and isinstance(depths, Sequence) and len(depths) > 0
    if not well_formed or any(isinstance(d, bool) or not isinstance(d, int) or d < 1 for d in depths):
        raise ConfigError(f"textcraft depths must be a non-empty list of numbers from 1 on, got {depths!r}")
    if len(set(depths)) < len(depths):
        raise ConfigError(f"textcraft depths must not repeat, got {list(depths)}")
    return tuple(sorted(depths))


def _task(split: Split, goal: str, seed: int, recipes: str | None) -> Task:
    name = goal.replace(" ", "_")
    if recipes is None:
        return Task("textcraft", f"{name}-{seed}", split, {"goal": goal, "seed": seed})
    # An item of the same name can be another task with other recipes.
    mark = hashlib.sha256(recipes.encode()).hexdigest()[:8]
    return Task("textcraft", f"{name}-{seed}-{mark}", split, {"goal": goal, "seed": seed, "recipes": recipes})
