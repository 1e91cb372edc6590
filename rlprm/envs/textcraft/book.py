"""The recipe book: what can be crafted from what, without cycles."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product

from rlprm.envs.textcraft.recipes import Recipe, builtin_recipes, folder_recipes
from rlprm.errors import ConfigError

__all__ = ["RecipeBook", "Way", "load_book"]

_BOOKS_KEPT = 8

Inputs = tuple[tuple[str, int], ...]
"""Items and counts that one crafting takes."""


@dataclass(frozen=True)
class Way:
    """A recipe with an item chosen for every class."""

    count: int
    """How many items one crafting makes."""
    inputs: Inputs
    """In the order of the recipe."""


class RecipeBook:
    """Recipes that make no cycle, and what follows from them.

    Attributes:
        items: Every item that a recipe mentions, those of left out recipes included.
        recipes: The recipes of each craftable item, both in a fixed order.
        depth: Of every item: 0 where it has no recipe (``get`` finds it), else one
            more than the deepest ingredient of its easiest recipe.
        rank: Of every item: 0 where it has no recipe, else more than that of anything
            that can be an ingredient of it.
        made: Number of items made, by output and sorted inputs of one crafting.
    """

    def __init__(self, recipes: Iterable[Recipe]) -> None:
        """Take over the recipes, apart from those of blocks into their parts and those that make a cycle."""
        offered = list(recipes)
        self.items = frozenset(name for recipe in offered for name in (recipe.output, *recipe.ingredients))
        self.recipes: dict[str, tuple[Recipe, ...]] = {}
        for recipe in _without_cycles(recipe for recipe in offered if not _takes_block_apart(recipe)):
            self.recipes[recipe.output] = (*self.recipes.get(recipe.output, ()), recipe)
        self.recipes = {output: self.recipes[output] for output in sorted(self.recipes)}
        self.depth: dict[str, int] = {}
        for item in sorted(self.items):
            self._find_depth(item)
        self.rank: dict[str, int] = {}
        for item in sorted(self.items):
            self._find_rank(item)
        self.made: dict[tuple[str, Inputs], int] = {}
        for output in self.recipes:
            for way in self.ways(output):
                self.made.setdefault((output, tuple(sorted(way.inputs))), way.count)
        self._surroundings: dict[str, tuple[list[str], list[str]]] = {}

    def ways(self, item: str) -> list[Way]:
        """Return the recipes of an item, once for each choice of items for their classes."""
        choices = []
        for recipe in self.recipes.get(item, ()):
            for members in product(*(slot.members for slot in recipe.slots)):
                counts = (slot.count for slot in recipe.slots)
                choices.append(Way(recipe.count, tuple(zip(members, counts, strict=True))))
        return choices

    def surroundings(self, goal: str) -> tuple[list[str], list[str]]:
        """Return the commands of all recipes that can lead to a goal, and of others with their ingredients.

        Both are sorted, so that drawing from them depends on nothing but the random numbers.
        """
        known = self._surroundings.get(goal)
        if known is None:
            leading = self._leading_to(goal)
            used = {slot.name for recipe in leading for slot in recipe.slots}
            related = {
                recipe.text
                for recipes in self.recipes.values()
                for recipe in recipes
                if any(slot.name in used for slot in recipe.slots)
            }
            commands = {recipe.text for recipe in leading}
            known = self._surroundings[goal] = (sorted(commands), sorted(related - commands))
        return known

    def _leading_to(self, goal: str) -> list[Recipe]:
        waiting, met, leading = [goal], {goal}, []
        while waiting:
            for recipe in self.recipes.get(waiting.pop(), ()):
                leading.append(recipe)
                new = recipe.ingredients - met
                met |= new
                waiting += sorted(new)
        return leading

    def _find_depth(self, item: str) -> int:
        if item not in self.depth:
            self.depth[item] = min(
                (
                    1 + max(min(self._find_depth(member) for member in slot.members) for slot in recipe.slots)
                    for recipe in self.recipes.get(item, ())
                ),
                default=0,
            )
        return self.depth[item]

    def _find_rank(self, item: str) -> int:
        if item not in self.rank:
            below = {name for recipe in self.recipes.get(item, ()) for name in recipe.ingredients}
            self.rank[item] = 1 + max((self._find_rank(name) for name in below), default=-1)
        return self.rank[item]


@functools.lru_cache(maxsize=_BOOKS_KEPT)
def load_book(folder: str | None = None) -> RecipeBook:
    """Return the recipe book of Minecraft 1.16.5, or of a folder of recipe files; read once per process.

    Raises:
        ConfigError: if the folder does not exist or has no recipe to craft by.
        DataError: if one of its files is not a recipe.
    """
    book = RecipeBook(builtin_recipes() if folder is None else folder_recipes(folder))
    if not book.recipes:
        raise ConfigError(f"textcraft recipes: nothing can be crafted by the files in {folder}")
    return book


def _takes_block_apart(recipe: Recipe) -> bool:
    return len(recipe.slots) == 1 and recipe.slots[0].name.endswith(" block")


def _without_cycles(recipes: Iterable[Recipe]) -> list[Recipe]:
    """Drop every recipe that closes a cycle with those before it.

    Those that take few items come first: of "9 nuggets from an ingot" and "an ingot from
    9 nuggets" the former stays, and ingots are what one starts from.
    """
    kept = []
    needs: dict[str, set[str]] = {}
    for recipe in sorted(recipes, key=lambda recipe: (recipe.consumed, recipe.text)):
        ingredients = recipe.ingredients
        if not _reaches(needs, ingredients, recipe.output):
            needs.setdefault(recipe.output, set()).update(ingredients)
            kept.append(recipe)
    return kept


def _reaches(needs: Mapping[str, set[str]], start: set[str], target: str) -> bool:
    waiting, met = list(start), set(start)
    while waiting:
        item = waiting.pop()
        if item == target:
            return True
        new = needs.get(item, set()) - met
        met |= new
        waiting += new
    return False
