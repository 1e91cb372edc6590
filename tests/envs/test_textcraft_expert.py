"""TextCraft: the expert's plans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from rlprm.envs import textcraft
from rlprm.envs.textcraft import RecipeBook, load_book
from rlprm.envs.textcraft.expert import shortest_plan
from rlprm.errors import DemonstrationError
from rlprm.types import End, Split, Task
from tests.toys.textcraft import recipe, small_book


def solved_goals() -> Iterator[tuple[Task, list[str]]]:
    """The goals that the expert solves, with its actions."""
    for number, goal in enumerate(load_book().recipes):
        t = Task("textcraft", goal, Split.TRAIN, {"goal": goal, "seed": number})
        try:
            yield t, textcraft.demonstrate(t, end=End.DECLARED)
        except DemonstrationError:
            continue


def test_the_expert_solves_nearly_all_goals() -> None:
    book = load_book()
    solved: Counter[int] = Counter()
    for t, actions in solved_goals():
        assert len(actions) <= textcraft.ROUND_LIMIT
        solved[book.depth[t.spec["goal"]]] += 1
    assert solved == {1: 147, 2: 275, 3: 104, 4: 7}  # of 147, 275, 114, 11; the others are coloured banners


def test_the_expert_finds_the_shortest_plan() -> None:
    book = load_book()
    # Bamboo saves a command over planks for a single stick, but not for eight.
    assert shortest_plan(book, "rail") == (
        "get 2 bamboo",
        "get 6 iron ingot",
        "craft 1 stick using 2 bamboo",
        "craft 16 rail using 6 iron ingot, 1 stick",
    )
    assert shortest_plan(book, "painting") == (
        "get 1 oak log",
        "get 4 string",
        "craft 4 oak planks using 1 oak log",
        "craft 1 white wool using 4 string",
        "craft 4 stick using 2 oak planks",
        "craft 4 stick using 2 oak planks",
        "craft 1 painting using 8 stick, 1 white wool",
    )


def test_planks_for_two_purposes_come_from_one_tree() -> None:
    book = RecipeBook(
        [
            *(r for recipes in small_book().recipes.values() for r in recipes),
            recipe("axe", 1, (2, "oak planks"), (2, "stick")),
        ]
    )
    assert shortest_plan(book, "axe") == (
        "get 1 oak log",
        "craft 4 oak planks using 1 oak log",
        "craft 4 stick using 2 oak planks",
        "craft 1 axe using 2 oak planks, 2 stick",
    )


def test_a_plan_that_needs_too_many_rounds_is_a_demonstration_error() -> None:
    banner = Task("textcraft", "gray banner", Split.TRAIN, {"goal": "gray banner", "seed": 0})
    with pytest.raises(DemonstrationError, match="gray banner: the shortest plan has 28 actions"):
        textcraft.demonstrate(banner, end=End.DECLARED)
    pink = Task("textcraft", "pink banner", Split.TRAIN, {"goal": "pink banner", "seed": 0})
    assert len(textcraft.demonstrate(pink, end=End.ON_SUCCESS)) == 20
    with pytest.raises(DemonstrationError, match="21"):
        textcraft.demonstrate(pink, end=End.DECLARED)


def test_thoughts_count_what_an_item_is_for() -> None:
    bed = Task("textcraft", "lime bed", Split.TRAIN, {"goal": "white bed", "seed": 0})
    actions = textcraft.demonstrate(bed, end=End.DECLARED)
    assert list(zip(textcraft.explain(bed, actions), actions, strict=True)) == [
        ("oak planks takes 1.", "get 1 oak log"),
        ("white wool takes 4, 3 times: 12.", "get 12 string"),
        ("I have what oak planks takes, for white bed.", "craft 4 oak planks using 1 oak log"),
        ("I have what white wool takes, for white bed.", "craft 1 white wool using 4 string"),
        ("Once more, 2 of 3.", "craft 1 white wool using 4 string"),
        ("Once more, 3 of 3.", "craft 1 white wool using 4 string"),
        ("I have what white bed takes, the goal.", "craft 1 white bed using 3 white wool, 3 oak planks"),
        ("The goal is crafted.", "finish"),
    ]


def test_an_item_of_several_recipes_is_counted_in_all() -> None:
    actions = [
        "get 3 stick",
        "craft 1 lever using 1 stick, 1 cobblestone",
        "craft 1 ladder using 2 stick",
        "craft 1 tower using 1 ladder, 1 lever",
    ]
    thoughts = textcraft.explain(Task("textcraft", "tower", Split.TRAIN, {}), actions)
    assert thoughts[0] == "lever and more take 3 in all."
    assert thoughts[-1] == "I have what tower takes, the goal."


def test_every_action_of_every_goal_gets_a_short_thought() -> None:
    for t, actions in solved_goals():
        thoughts = textcraft.explain(t, actions)
        assert len(thoughts) == len(actions)
        assert all(0 < len(thought.split()) <= 16 for thought in thoughts)
