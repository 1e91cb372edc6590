"""Recipes, from the package ``minecraft-data`` or from a folder of Minecraft's own recipe files."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlprm.envs._checks import user_path
from rlprm.errors import ConfigError, DataError

__all__ = ["MINECRAFT_VERSION", "Recipe", "Slot", "builtin_recipes", "folder_recipes", "merge_variants"]

MINECRAFT_VERSION = "1.16.5"
"""AgentGym's."""

_MOST_ALTERNATIVES = 3  # of these without a common name, that stay recipes of their own

_NOT_A_RECIPE = (
    OSError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    OverflowError,  # of an infinite count
    RecursionError,
)
_Raw = tuple[str, int, list[tuple[str, int]], str]  # output, count, counted inputs, group


@dataclass(frozen=True)
class Slot:
    """One ingredient of a recipe."""

    name: str
    """An item (``"oak log"``) or a class of items (``"planks"``)."""
    count: int
    members: tuple[str, ...]
    """The items that fill it; just the one of that name, unless it is a class."""


@dataclass(frozen=True)
class Recipe:
    """One crafting command, as it is shown to the agent."""

    output: str
    count: int
    """How many items one crafting makes."""
    slots: tuple[Slot, ...]

    @property
    def text(self) -> str:
        """The crafting command."""
        inputs = ", ".join(f"{slot.count} {slot.name}" for slot in self.slots)
        return f"craft {self.count} {self.output} using {inputs}"

    @property
    def consumed(self) -> int:
        """How many items one crafting takes."""
        return sum(slot.count for slot in self.slots)

    @property
    def ingredients(self) -> set[str]:
        """Every item that fills one of the slots."""
        return {member for slot in self.slots for member in slot.members}


def builtin_recipes() -> list[Recipe]:
    """Return the recipes of Minecraft 1.16.5, with variants merged."""
    import minecraft_data  # type: ignore[import-untyped]  # not needed for a folder of recipes

    data = minecraft_data(MINECRAFT_VERSION)
    names = {entry["id"]: _readable(entry["name"]) for entry in data.items_list}
    variants: dict[tuple[str, int], list[Mapping[str, int]]] = {}
    for entries in data.recipes.values():
        for entry in entries:
            rows = [*entry.get("inShape", ()), entry.get("ingredients", ())]
            counts = Counter(names[item] for row in rows for item in row if item is not None)
            result = entry["result"]
            variants.setdefault((names[result["id"]], result["count"]), []).append(counts)
    items = frozenset(names.values())
    return [
        Recipe(output, count, slots)
        for (output, count), alternatives in variants.items()
        for slots in merge_variants(alternatives, items)
    ]


def merge_variants(variants: Iterable[Mapping[str, int]], items: frozenset[str]) -> list[tuple[Slot, ...]]:
    """Merge recipes of one thing that differ in the item of one slot only.

    The class that such items make takes the name of the words they end with (planks, wool).
    Where they share none, or the name is an item's (sand and red sand), a few alternatives
    stay recipes of their own. Of more (a log, its wood, both stripped) only the first is kept,
    as AgentGym does with the alternatives of an ingredient.

    Args:
        variants: Counts by item of one crafting each, in the order of the slots.
        items: Names of all items.
    """
    recipes = [tuple(Slot(name, count, (name,)) for name, count in counts.items()) for counts in variants]
    for place in range(max(map(len, recipes), default=0)):
        alike: dict[tuple[Slot, ...], list[tuple[Slot, ...]]] = {}
        for slots in recipes:
            if place < len(slots):
                blank = replace(slots[place], name="", members=())
                alike.setdefault((*slots[:place], blank, *slots[place + 1 :]), []).append(slots)
            else:
                alike.setdefault(slots, []).append(slots)
        recipes = [slots for group in alike.values() for slots in _merged(group, place, items)]
    return recipes


def folder_recipes(folder: str | Path) -> list[Recipe]:
    """Return the crafting recipes of a folder of Minecraft recipe files (``*.json``), read as AgentGym does.

    Of an ingredient with alternatives the first is taken. The members of a tag are the things
    whose recipes name it as their ``group``; a tag without such is taken for an item. Recipes
    of other kinds (smelting, ...) are left out.

    Raises:
        ConfigError: if there is no such folder or no such file in it.
        DataError: if a file is not a recipe.
    """
    path = user_path("textcraft recipes", str(folder))
    files = sorted(path.glob("*.json"))
    if not files:
        raise ConfigError(f"textcraft recipes: {str(folder)!r} is not a folder of recipe files (*.json)")
    raws = [raw for file in files if (raw := _read(file)) is not None]
    members: dict[str, set[str]] = {}
    for output, _, _, group in raws:
        members.setdefault(group, set()).add(output)
    return [
        Recipe(output, count, tuple(_slot(name, number, members) for name, number in inputs))
        for output, count, inputs, _ in raws
    ]


def _readable(identifier: str) -> str:
    """Turn ``minecraft:oak_log`` into ``oak log``, in the characters an action may have."""
    return " ".join(re.sub(r"[^a-z0-9]+", " ", identifier.split(":")[-1].lower()).split())


def _merged(group: list[tuple[Slot, ...]], place: int, items: frozenset[str]) -> list[tuple[Slot, ...]]:
    if len(group) == 1:
        return group
    members = tuple(slots[place].name for slots in group)
    name = _common_ending(members)
    if name and name not in items:
        first = group[0]
        return [(*first[:place], Slot(name, first[place].count, members), *first[place + 1 :])]
    return group if len(group) <= _MOST_ALTERNATIVES else group[:1]


def _common_ending(names: Sequence[str]) -> str:
    """Return the words that all the names end with."""
    shared: list[str] = []
    for words in zip(*(reversed(name.split()) for name in names), strict=False):
        if len(set(words)) > 1:
            break
        shared.insert(0, words[0])
    return " ".join(shared)


def _slot(name: str, count: int, members: Mapping[str, set[str]]) -> Slot:
    """Make a slot; ``name`` begins with ``#`` where it is a tag."""
    plain = name.removeprefix("#")
    return Slot(plain, count, tuple(sorted(members.get(name, {plain}))))


def _read(file: Path) -> _Raw | None:
    """Return output, count, counted inputs and group of a recipe file; None if it is not for crafting."""
    try:
        recipe = json.loads(file.read_text(encoding="utf-8-sig"))
        kind = recipe["type"].removeprefix("minecraft:")
        if kind == "crafting_shaped":
            cells = "".join(recipe["pattern"])
            counts = {symbol: cells.count(symbol) for symbol in recipe["key"]}
            inputs = [(_ingredient(recipe["key"][symbol]), n) for symbol, n in counts.items() if n]
        elif kind == "crafting_shapeless":
            inputs = [(_ingredient(ingredient), 1) for ingredient in recipe["ingredients"]]
        else:
            return None
        totals: Counter[str] = Counter()
        for name, number in inputs:
            totals[name] += number
        if not totals:
            raise ValueError("no ingredients")
        result = recipe["result"]
        if isinstance(result, str):
            result = {"item": result}
        output, count = _readable(result.get("item") or result["id"]), int(result.get("count", 1))
        if count < 1:
            raise ValueError(f"it makes {count} items")
        return output, count, list(totals.items()), "#" + _readable(recipe.get("group", ""))
    except _NOT_A_RECIPE as error:
        raise DataError(f"{file} is not a Minecraft recipe: {error!r}") from error


def _ingredient(ingredient: Any) -> str:
    """Return the readable name of an ingredient, with ``#`` in front of a tag."""
    if isinstance(ingredient, list):
        ingredient = ingredient[0]
    if isinstance(ingredient, str):  # the short form of later versions
        return ("#" if ingredient.startswith("#") else "") + _readable(ingredient)
    return "#" + _readable(ingredient["tag"]) if "tag" in ingredient else _readable(ingredient["item"])
