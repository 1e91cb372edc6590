"""TextCraft: the text and rules of AgentGym."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlprm.envs import textcraft
from rlprm.envs.textcraft import RecipeBook, TextCraft, load_book
from rlprm.types import End
from tests.toys.textcraft import PLANKS, TO_THE_TORCH, answers, episode, recipe


def test_the_first_observation() -> None:
    book = RecipeBook([recipe("stick", 4, (2, "planks", PLANKS))])
    shown = "Crafting commands:\ncraft 4 stick using 2 planks\n\nGoal: craft stick."
    assert TextCraft(book, "stick", 0, end=End.ON_SUCCESS).reset() == shown
    declared = TextCraft(book, "stick", 0, end=End.DECLARED).reset()
    assert declared == shown + "\nNobody tells you when the goal is met: answer finish once it is."


def test_an_episode_word_for_word() -> None:
    env = episode()
    assert answers(env, *TO_THE_TORCH, "inventory") == [
        "Got 1 oak log",
        "Crafted 4 minecraft:oak_planks",
        "Crafted 4 minecraft:stick",
        "Got 1 coal",
        "Crafted 4 minecraft:torch",
        "Inventory: [oak planks] (2) [stick] (3) [torch] (4) ",
    ]


def test_an_empty_inventory() -> None:
    env = episode()
    assert answers(env, "inventory") == ["Inventory: You are not carrying anything."]
    assert answers(env, "get 1 oak log", "craft 4 oak planks using 1 oak log", "inventory")[-1] == (
        "Inventory: [oak planks] (4) "
    )


@pytest.mark.parametrize(
    ("action", "answer"),
    [
        ("get 1 stick", "Could not find stick"),  # it has a recipe
        ("get 2 planks", "Could not find planks"),  # a class
        ("get 1 unobtainium", "Could not find unobtainium"),
        ("get 1 minecraft:coal", "Could not find minecraftcoal"),  # AgentGym drops the colon
        ("get " + "9" * 1001 + " coal", "Could not find coal"),  # the one count that AgentGym takes
        ("Get 1 coal", "Could not execute Get 1 coal"),  # letter case counts
        ("get 1 Coal", "Could not find Coal"),
        ("Inventory", "Could not execute Inventory"),
        ("craft 4 Stick using 1 Coal", "Could not find enough items to craft minecraft:Stick"),
        ("get coal", "Could not execute get coal"),
        ("jump", "Could not execute jump"),
        ("", "Could not execute "),
        ("craft 1 torch", "Could not execute craft 1 torch"),
        ("craft 4 stick using 2 oak planks", "Could not find enough items to craft minecraft:stick"),
        ("craft 4 stick using 2 planks", "Could not find enough items to craft minecraft:stick"),
        ("craft 1 torch using log", "Wrong item format: log"),
        ("craft 1 torch using 1 coal, stick", "Wrong item format: stick"),
        ("craft 1 torch using 1 coal,", "Wrong item format: "),
        (
            "craft " + "a" * 300 + " using 1 coal",
            f"Could not find enough items to craft minecraft:{'a' * 200}...",
        ),
        ("jump " * 1000, "Could not execute " + ("jump " * 40) + "..."),
    ],
)
def test_what_cannot_be_done_is_answered_and_changes_nothing(action: str, answer: str) -> None:
    env = episode()
    assert answers(env, action, "inventory") == [answer, "Inventory: You are not carrying anything."]


@pytest.mark.parametrize(
    "inputs",
    [
        "3 oak planks",  # more than the recipe says
        "1 oak planks",
        "1 oak planks, 1 oak planks",
        "1 oak planks, 1 birch planks",  # one kind a crafting, as in AgentGym
        "2 oak planks, 1 coal",
        "2 coal",
    ],
)
def test_inputs_must_equal_the_recipe(inputs: str) -> None:
    env = episode()
    answers(env, "get 1 oak log", "craft oak planks using 1 oak log", "get 5 coal", "get 1 birch log")
    answers(env, "craft birch planks using 1 birch log")
    held = "Inventory: [oak planks] (4) [coal] (5) [birch planks] (4) "
    wrong = "Could not find a valid recipe for minecraft:stick"
    assert answers(env, f"craft 4 stick using {inputs}", "inventory") == [wrong, held]


def test_the_order_of_inputs_does_not_matter() -> None:
    env = episode()
    answers(env, *TO_THE_TORCH[:-1])
    assert answers(env, "craft 4 torch using 1 stick, 1 coal") == ["Crafted 4 minecraft:torch"]


@pytest.mark.parametrize("requested", ["stick", "1 stick", "400 stick"])
def test_the_number_asked_for_has_no_effect(requested: str) -> None:
    env = episode()
    answers(env, *TO_THE_TORCH[:2])
    assert answers(env, f"craft {requested} using 2 oak planks") == ["Crafted 4 minecraft:stick"]


def test_any_member_fills_a_class() -> None:
    env = episode()
    answers(env, "get 1 birch log", "craft 4 birch planks using 1 birch log")
    assert answers(env, "craft 4 stick using 2 birch planks") == ["Crafted 4 minecraft:stick"]


def test_counts_add_up() -> None:
    env = episode()
    answers(env, "get 2 coal", "get 003 coal")
    assert answers(env, "inventory") == ["Inventory: [coal] (5) "]


def test_none_of_an_item_can_be_got_and_is_shown() -> None:
    """AgentGym adds the count whatever it is, and removes an item only when a craft uses it up."""
    env = episode()
    assert answers(env, "get 0 coal", "inventory") == ["Got 0 coal", "Inventory: [coal] (0) "]
    assert answers(env, "craft 4 torch using 0 coal") == ["Could not find a valid recipe for minecraft:torch"]


@pytest.mark.parametrize("digits", [10, 300])
def test_counts_of_many_digits(digits: int) -> None:
    env = episode()
    most = "9" * digits
    twice = 2 * int(most)
    assert answers(env, f"get {most} coal", f"get {most} coal", "inventory") == [
        *[f"Got {most} coal"] * 2,
        f"Inventory: [coal] ({twice}) ",
    ]
    assert answers(env, f"craft 4 torch using {twice + 1} coal, 1 stick") == [
        "Could not find enough items to craft minecraft:torch"
    ]
    assert answers(env, f"craft 4 torch using {twice} coal") == [
        "Could not find a valid recipe for minecraft:torch"
    ]


def test_each_entry_of_the_inputs_is_looked_for_by_itself() -> None:
    """AgentGym compares entry by entry with what is held, and only then looks for a recipe."""
    env = episode()
    answers(env, "get 1 coal")
    assert answers(env, "craft 4 torch using 1 coal, 1 coal", "craft 4 torch using 1 coal, 2 coal") == [
        "Could not find a valid recipe for minecraft:torch",
        "Could not find enough items to craft minecraft:torch",
    ]


def test_one_item_in_two_slots_needs_both_counts() -> None:
    book = RecipeBook([recipe("gate", 1, (1, "planks", ("a", "b")), (2, "slab", ("a", "c")))])
    env = episode("gate", book=book)
    answers(env, "get 2 a")
    assert answers(env, "craft 1 gate using 1 a, 2 a")[0].startswith("Could not find enough items")
    assert answers(env, "get 1 a", "craft 1 gate using 1 a, 2 a")[-1] == "Crafted 1 minecraft:gate"
    assert answers(env, "inventory") == ["Inventory: [gate] (1) "]


_ENTRIES = st.sampled_from(
    ["1 oak log", "1 birch log", "2 oak planks", "2 birch planks", "1 coal", "1 stick", "7 stick"]
)
_ACTIONS = st.one_of(
    st.builds("get {}".format, _ENTRIES),
    st.builds(
        "craft {} using {}".format,
        st.sampled_from(["oak planks", "birch planks", "stick", "torch", "ladder"]),
        st.lists(_ENTRIES, min_size=1, max_size=2).map(", ".join),
    ),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(_ACTIONS, max_size=40))
def test_nothing_is_held_that_was_not_got_or_made(actions: list[str]) -> None:
    env = episode()
    held: Counter[str] = Counter()
    for action in actions:
        answer = env.step(action).observation
        found = re.findall(r"\[(.*?)\] \((\d+)\)", env.step("inventory").observation)
        before, held = held, Counter({name: int(count) for name, count in found})
        if answer.startswith("Could not"):
            assert held == before
        elif answer.startswith("Got"):
            _, count, name = answer.split(" ", 2)
            assert held == before + Counter({name: int(count)})
        else:
            spent = Counter(
                {name: int(n) for n, name in re.findall(r"(\d+) ([a-z ]+)", action.split(" using ")[1])}
            )
            assert spent <= before
            made, name = answer.removeprefix("Crafted ").split(" minecraft:")
            assert held == before - spent + Counter({name.replace("_", " "): int(made)})
    assert min(held.values(), default=1) > 0


@pytest.mark.parametrize("spelling", ["get 2  coal", " get 2 coal.", "get 2 coal\n", "**get 2 coal**"])
def test_spellings_of_an_action(spelling: str) -> None:
    assert answers(episode(), spelling) == ["Got 2 coal"]


def test_look_is_inventory() -> None:
    """AgentGym's client replaces the word alone; its server takes what begins with "inventory"."""
    empty = ["Inventory: You are not carrying anything."]
    for action in ("look", "Look", "look.", "inventory please"):
        assert answers(episode(), action) == empty
    assert answers(episode(), "look around") == ["Could not execute look around"]


def test_fixed_phrases_are_in_no_item() -> None:
    for phrase in textcraft.FIXED_PHRASES:
        assert not re.search(r"\d", phrase)
        assert not any(phrase.rstrip(" ") in name for name in load_book().items), phrase
