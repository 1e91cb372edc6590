"""TextCraft: the recipes of Minecraft, merged and without cycles."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from rlprm.envs.textcraft import Recipe, RecipeBook, Slot, load_book
from rlprm.envs.textcraft.recipes import builtin_recipes, merge_variants
from tests.toys.textcraft import recipe

ITEMS = frozenset({"oak planks", "birch planks", "stick", "sand", "red sand", "coal", "charcoal", "a log"})


def shown(*variants: dict[str, int]) -> list[str]:
    return [
        Recipe("x", 1, slots).text.removeprefix("craft 1 x using ")
        for slots in merge_variants(variants, ITEMS)
    ]


def test_variants_are_merged_into_a_class_named_by_their_ending() -> None:
    assert shown({"oak planks": 2}, {"birch planks": 2}) == ["2 planks"]
    (slots,) = merge_variants([{"oak planks": 2}, {"birch planks": 2}], ITEMS)
    assert slots == (Slot("planks", 2, ("oak planks", "birch planks")),)
    assert shown({"dark oak log": 1}, {"stripped dark oak log": 1}) == ["1 dark oak log"]


def test_variants_in_two_slots_are_merged_in_both() -> None:
    woods = ("oak", "birch", "dark oak")
    variants = [{f"{a} planks": 6, f"{b} slab": 2} for a in woods for b in woods]
    assert shown(*variants) == ["6 planks, 2 slab"]


def test_different_counts_are_different_recipes() -> None:
    assert shown({"oak planks": 2}, {"birch planks": 3}) == ["2 oak planks", "3 birch planks"]
    assert shown({"oak planks": 2, "coal": 1}, {"birch planks": 2}) == [
        "2 oak planks, 1 coal",
        "2 birch planks",
    ]


def test_without_a_common_name_a_few_stay_and_of_many_the_first() -> None:
    assert shown({"coal": 1, "stick": 1}, {"charcoal": 1, "stick": 1}) == [
        "1 coal, 1 stick",
        "1 charcoal, 1 stick",
    ]
    assert shown({"sand": 4}, {"red sand": 4}) == ["4 sand", "4 red sand"]  # "sand" is an item
    assert shown({"a log": 1}, {"a wood": 1}, {"bare a log": 1}, {"bare a wood": 1}) == ["1 a log"]


def commands_for(goal: str) -> list[str]:
    return [r.text for r in load_book().recipes.get(goal, ())]


@pytest.mark.parametrize(
    ("goal", "expected"),
    [
        ("stick", ["craft 1 stick using 2 bamboo", "craft 4 stick using 2 planks"]),
        ("pink banner", ["craft 1 pink banner using 6 pink wool, 1 stick"]),
        ("oak planks", ["craft 4 oak planks using 1 oak log"]),
        ("barrel", ["craft 1 barrel using 6 planks, 2 slab"]),
        ("painting", ["craft 1 painting using 8 stick, 1 wool"]),
        ("torch", ["craft 4 torch using 1 charcoal, 1 stick", "craft 4 torch using 1 coal, 1 stick"]),
        ("golden carrot", ["craft 1 golden carrot using 8 gold nugget, 1 carrot"]),
        ("gold nugget", ["craft 9 gold nugget using 1 gold ingot"]),
        ("gold ingot", []),  # neither from a block nor, in a circle, from nuggets
        ("cake", ["craft 1 cake using 3 milk bucket, 2 sugar, 1 egg, 3 wheat"]),
        ("white bed", ["craft 1 white bed using 3 white wool, 3 planks"]),
    ],
)
def test_recipes_of_minecraft(goal: str, expected: list[str]) -> None:
    assert commands_for(goal) == expected


@pytest.mark.parametrize(
    ("item", "depth"),
    [
        ("oak log", 0),
        ("bone", 0),
        ("gold ingot", 0),
        ("bone meal", 1),
        ("oak planks", 1),
        ("stick", 1),  # from bamboo
        ("white dye", 1),  # from lily of the valley, although bone meal has depth 1 itself
        ("pink wool", 2),
        ("painting", 2),  # with white wool
        ("pink banner", 3),
        ("bookshelf", 3),
        ("lectern", 4),
    ],
)
def test_depths(item: str, depth: int) -> None:
    assert load_book().depth[item] == depth


def test_the_size_of_the_book() -> None:
    book = load_book()
    assert Counter(book.depth[goal] for goal in book.recipes) == {1: 147, 2: 275, 3: 114, 4: 11}
    assert sum(map(len, book.recipes.values())) == 633


def test_no_recipe_makes_a_cycle() -> None:
    book = load_book()
    assert all(
        book.rank[item] < book.rank[goal]
        for goal, recipes in book.recipes.items()
        for r in recipes
        for item in r.ingredients
    )
    # What is left out either closes a cycle or takes a block apart.
    kept = {r.text for recipes in book.recipes.values() for r in recipes}
    dropped = {r.text for r in builtin_recipes()} - kept
    assert "craft 1 iron ingot using 9 iron nugget" in dropped
    assert "craft 9 coal using 1 coal block" in dropped
    assert len(dropped) == 27


def test_of_a_cycle_the_recipe_that_takes_more_is_dropped() -> None:
    book = RecipeBook(
        [
            recipe("ingot", 1, (9, "nugget")),
            recipe("nugget", 9, (1, "ingot")),
            recipe("coin", 1, (2, "nugget")),
            recipe("ingot", 1, (3, "coin")),  # a longer circle
            recipe("red wool", 1, (1, "wool", ("red wool", "white wool"))),  # in itself
        ]
    )
    assert {goal: [r.text for r in found] for goal, found in book.recipes.items()} == {
        "coin": ["craft 1 coin using 2 nugget"],
        "nugget": ["craft 9 nugget using 1 ingot"],
    }
    assert book.depth == {"ingot": 0, "nugget": 1, "coin": 2, "red wool": 0, "white wool": 0}


def test_the_recipe_book_is_read_once_and_fast() -> None:
    load_book.cache_clear()
    start = time.perf_counter()
    book = load_book()
    assert time.perf_counter() - start < 2  # 0.06 s on an idle core
    assert load_book() is book
