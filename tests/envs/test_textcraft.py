"""TextCraft: recipes, the text and rules of AgentGym, tasks and plans."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlprm.envs import textcraft
from rlprm.envs.textcraft import Recipe, RecipeBook, Slot, TextCraft, load_book
from rlprm.envs.textcraft.expert import shortest_plan
from rlprm.envs.textcraft.goals import commands, split_goals
from rlprm.envs.textcraft.recipes import builtin_recipes, merge_variants
from rlprm.errors import ConfigError, DataError, DemonstrationError
from rlprm.types import End, Split, StopReason, Task

PLANKS = ("birch planks", "oak planks")


def recipe(output: str, count: int, *slots: tuple[int, str] | tuple[int, str, tuple[str, ...]]) -> Recipe:
    return Recipe(output, count, tuple(Slot(s[1], s[0], s[2] if len(s) == 3 else (s[1],)) for s in slots))


def small_book() -> RecipeBook:
    """Planks from two trees, sticks, a torch, and a ladder."""
    return RecipeBook(
        [
            recipe("oak planks", 4, (1, "oak log")),
            recipe("birch planks", 4, (1, "birch log")),
            recipe("stick", 4, (2, "planks", PLANKS)),
            recipe("torch", 4, (1, "coal"), (1, "stick")),
            recipe("ladder", 3, (7, "stick")),
        ]
    )


def episode(goal: str = "torch", end: End = End.DECLARED, book: RecipeBook | None = None) -> TextCraft:
    env = TextCraft(book or small_book(), goal, 0, end=end)
    env.reset()
    return env


def answers(env: TextCraft, *actions: str) -> list[str]:
    return [env.step(action).observation for action in actions]


TO_THE_TORCH = [
    "get 1 oak log",
    "craft 4 oak planks using 1 oak log",
    "craft 4 stick using 2 oak planks",
    "get 1 coal",
    "craft 4 torch using 1 coal, 1 stick",
]

# ------------------------------------------------------------------------------ text and rules


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
        ("get " + "9" * 5000 + " coal", "Could not find coal"),
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
    answers(env, "get 2 coal", "get 3 coal", "get 0 oak log")
    assert answers(env, "inventory") == ["Inventory: [coal] (5) "]


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


@pytest.mark.parametrize("spelling", ["Get 2  coal", " get 2 coal.", "get 2 coal\n", "**get 2 coal**"])
def test_spellings_of_an_action(spelling: str) -> None:
    assert answers(episode(), spelling) == ["Got 2 coal"]


def test_look_is_inventory() -> None:
    assert (
        answers(episode(), "look")
        == answers(episode(), "inventory please")
        == answers(episode(), "Inventory")
    )


# ------------------------------------------------------------------------------ ends


def test_on_success_ends_with_the_goal() -> None:
    env = episode(end=End.ON_SUCCESS)
    *before, last = [env.step(action) for action in TO_THE_TORCH]
    assert [(turn.reward, turn.stop) for turn in before] == [(0.0, None)] * 4
    assert (last.observation, last.reward, last.stop) == (
        "Crafted 4 minecraft:torch",
        1.0,
        StopReason.SUCCESS,
    )
    assert env.outcome().success
    assert env.outcome().score == 1.0
    with pytest.raises(RuntimeError, match="over"):
        env.step("inventory")


def test_finish_is_no_action_where_the_environment_ends_the_episode() -> None:
    turn = episode(end=End.ON_SUCCESS).step("finish")
    assert (turn.observation, turn.stop) == ("Could not execute finish", None)


def test_declared_announces_nothing_and_waits_for_finish() -> None:
    env = episode()
    turns = [env.step(action) for action in [*TO_THE_TORCH, "inventory"]]
    assert all((turn.reward, turn.stop) == (0.0, None) for turn in turns)
    assert turns[4].observation == "Crafted 4 minecraft:torch"
    end = env.step("finish")
    assert (end.observation, end.reward, end.stop) == ("You have finished.", 1.0, StopReason.DECLARED)
    assert env.outcome().success


def test_a_goal_that_was_used_up_again_counts_as_crafted() -> None:
    env = episode("stick")
    answers(env, "get 4 oak log", *["craft 4 oak planks using 1 oak log"] * 2)
    assert not env.outcome().success
    answers(env, *["craft 4 stick using 2 oak planks"] * 2, "craft 3 ladder using 7 stick")
    assert env.outcome().success


def test_finishing_too_early_fails() -> None:
    env = episode()
    answers(env, *TO_THE_TORCH[:-1])
    turn = env.step("finish")
    assert (turn.reward, turn.stop, env.outcome().success) == (0.0, StopReason.DECLARED, False)


def test_a_fork_holds_its_own_things() -> None:
    env = episode()
    answers(env, "get 1 coal")
    fork = env.fork()
    answers(fork, "get 2 coal")
    assert answers(env, "inventory") == ["Inventory: [coal] (1) "]
    assert answers(fork, "inventory") == ["Inventory: [coal] (3) "]


def test_finish_is_explained_where_it_exists() -> None:
    for style in ("short", "agentgym"):
        for end in End:
            instructions = textcraft.opening(end=end, style=style)[0]["content"]
            assert ("finish" in instructions) == (end is End.DECLARED)
    acknowledgement = textcraft.opening(end=End.ON_SUCCESS, style="agentgym")[1]["content"]
    assert acknowledgement == "OK. I'll follow your instructions and try my best to solve the task."


# ------------------------------------------------------------------------------ recipes

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


# ------------------------------------------------------------------------------ folders


def shaped(pattern: list[str], key: dict[str, Any], result: Any, **more: Any) -> dict[str, Any]:
    return {"type": "minecraft:crafting_shaped", "pattern": pattern, "key": key, "result": result, **more}


def shapeless(ingredients: list[Any], result: Any, **more: Any) -> dict[str, Any]:
    return {"type": "minecraft:crafting_shapeless", "ingredients": ingredients, "result": result, **more}


def item(name: str) -> dict[str, str]:
    return {"item": f"minecraft:{name}"}


FILES: dict[str, Any] = {
    "oak_planks": shapeless(
        [{"tag": "minecraft:oak_logs"}], {"item": "minecraft:oak_planks", "count": 4}, group="planks"
    ),
    "birch_planks": shapeless(
        [item("birch_log")], {"item": "minecraft:birch_planks", "count": 4}, group="planks"
    ),
    "stick": shaped(["#", "#"], {"#": {"tag": "minecraft:planks"}}, {"item": "minecraft:stick", "count": 4}),
    "torch": shaped(
        ["X", "#"],
        {"#": item("stick"), "X": [item("coal"), item("charcoal")]},
        {"item": "minecraft:torch", "count": 4},
    ),
    "book": shapeless([item("paper"), item("paper"), item("paper"), item("leather")], item("book")),
    "coal": shapeless([item("coal_block")], {"item": "minecraft:coal", "count": 9}),
    "charcoal": {
        "type": "minecraft:smelting",
        "ingredient": {"tag": "minecraft:logs"},
        "result": "minecraft:charcoal",
    },
    # The form of later versions.
    "bowl": shaped(["# #", " # "], {"#": "#minecraft:planks"}, {"id": "minecraft:bowl", "count": 4}),
    "door": shaped(["##", "##", "##"], {"#": "minecraft:oak_planks"}, "minecraft:oak_door"),
}


@pytest.fixture
def folder(tmp_path: Path) -> str:
    for name, content in FILES.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return str(tmp_path)


def test_a_folder_of_recipe_files(folder: str) -> None:
    book = load_book(folder)
    assert sorted(r.text for recipes in book.recipes.values() for r in recipes) == [
        "craft 1 book using 3 paper, 1 leather",
        "craft 1 oak door using 6 oak planks",
        "craft 4 birch planks using 1 birch log",
        "craft 4 bowl using 3 planks",
        "craft 4 oak planks using 1 oak logs",  # nothing is made with this tag, so it is an item
        "craft 4 stick using 2 planks",
        "craft 4 torch using 1 stick, 1 coal",
    ]
    assert book.depth["torch"] == 3
    assert book.depth["coal"] == book.depth["oak logs"] == 0
    env = TextCraft(book, "stick", 0, end=End.ON_SUCCESS)
    env.reset()
    assert answers(env, "get 1 coal", "get 1 oak logs", "get 1 planks")[1:] == [
        "Got 1 oak logs",
        "Could not find planks",
    ]


def test_tasks_of_a_folder(folder: str) -> None:
    found = [textcraft.tasks(split, 0, 20, recipes=folder) for split in Split]
    every = [task for part in found for task in part]
    assert len({task.id for task in every}) == 60
    assert not {task.id for task in every} & {task.id for task in textcraft.tasks(Split.TEST, 0, 100)}
    for task in every:
        assert task.spec["recipes"] == folder
        assert textcraft.demonstrate(task, end=End.DECLARED)[-1] == "finish"
    torches = textcraft.tasks(Split.TRAIN, 0, 2, recipes=folder, depths=[3])
    assert textcraft.demonstrate(torches[0], end=End.ON_SUCCESS) == [
        "get 1 birch log",
        "get 1 coal",
        "craft 4 birch planks using 1 birch log",
        "craft 4 stick using 2 birch planks",
        "craft 4 torch using 1 stick, 1 coal",
    ]


def test_a_folder_without_recipes_is_a_config_error(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ConfigError, match="not a folder of recipe files"):
            textcraft.tasks(Split.TRAIN, 0, 1, recipes=str(path))
    (tmp_path / "charcoal.json").write_text(json.dumps(FILES["charcoal"]))
    with pytest.raises(ConfigError, match="nothing can be crafted"):
        textcraft.tasks(Split.TRAIN, 0, 1, recipes=str(tmp_path))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"type": 3}',
        '{"type": "crafting_shaped"}',
        json.dumps(shapeless([], "minecraft:x")),
        json.dumps(shapeless([[]], "minecraft:x")),
        json.dumps(shapeless([{"fluid": "water"}], "minecraft:x")),
        json.dumps(shapeless([item("a")], {"count": 1})),
        json.dumps(shapeless([item("a")], {"item": "x", "count": "many"})),
        json.dumps(shapeless([item("a")], {"item": "x", "count": 0})),
        b"\xff\xfe",
    ],
)
def test_a_damaged_recipe_file_is_named(tmp_path: Path, content: str | bytes) -> None:
    (tmp_path / "bad.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=r"bad\.json"):
        textcraft.tasks(Split.TRAIN, 0, 1, recipes=str(tmp_path))


# ------------------------------------------------------------------------------ tasks


def test_no_goal_is_in_two_splits() -> None:
    goals = {split: {t.spec["goal"] for t in textcraft.tasks(split, 0, 1000)} for split in Split}
    assert {split: len(found) for split, found in goals.items()} == {
        Split.TRAIN: 347,
        Split.DEV: 100,
        Split.TEST: 100,
    }
    assert sum(len(found) for found in goals.values()) == len(set().union(*goals.values()))


def test_test_and_dev_goals_have_the_published_depths() -> None:
    depth = load_book().depth
    for split in (Split.TEST, Split.DEV):
        found = textcraft.tasks(split, 0, 100)
        assert len({t.spec["goal"] for t in found}) == 100
        assert Counter(depth[t.spec["goal"]] for t in found) == {1: 31, 2: 41, 3: 25, 4: 3}


def test_other_depths_leave_every_goal_in_its_split() -> None:
    for split in Split:
        every = set(split_goals(None, (1, 2, 3, 4))[split])
        parts = [set(split_goals(None, depths)[split]) for depths in ((1, 3), (2,), (4,))]
        assert set().union(*parts) == every


def test_tasks_beyond_the_goals_have_other_distractors() -> None:
    first, again = textcraft.tasks(Split.TEST, 0, 1)[0], textcraft.tasks(Split.TEST, 100, 1)[0]
    assert first.spec["goal"] == again.spec["goal"]
    assert first.spec["seed"] != again.spec["seed"]
    observations = [textcraft.make(t, end=End.ON_SUCCESS).reset() for t in (first, again)]
    assert observations[0] != observations[1]


def test_depths_choose_the_goals() -> None:
    depth = load_book().depth
    assert {depth[t.spec["goal"]] for t in textcraft.tasks(Split.TRAIN, 0, 50, depths=[2, 3])} == {2, 3}


@pytest.mark.parametrize("depths", [[], "12", [0], [1, 1], [1.5], [True], [9], 2, None])
def test_impossible_depths_are_config_errors(depths: Any) -> None:
    with pytest.raises(ConfigError, match="depth"):
        textcraft.tasks(Split.TRAIN, 0, 1, depths=depths)


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"goal": "stick"},
        {"goal": "oak log", "seed": 1},
        {"goal": "stick", "seed": True},
        {"goal": ["x"], "seed": 1},
    ],
)
def test_a_foreign_spec_is_a_config_error(spec: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="not a textcraft task"):
        textcraft.make(Task("textcraft", "stranger", Split.TEST, spec), end=End.DECLARED)


def test_a_task_shows_what_leads_to_its_goal_and_up_to_ten_distractors() -> None:
    book = load_book()
    for t in textcraft.tasks(Split.TRAIN, 0, 100):
        goal = t.spec["goal"]
        leading, related = book.surroundings(goal)
        listed = commands(book, goal, t.spec["seed"])
        assert len(listed) == len(set(listed)) == len(leading) + min(10, len(related))
        assert set(leading) <= set(listed) <= {*leading, *related}
    leading, related = small_book().surroundings("stick")
    assert leading == [
        "craft 4 birch planks using 1 birch log",
        "craft 4 oak planks using 1 oak log",
        "craft 4 stick using 2 planks",
    ]
    assert related == []
    assert small_book().surroundings("torch")[1] == ["craft 3 ladder using 7 stick"]


def test_the_text_of_a_task_is_pinned() -> None:
    """Another order or choice of distractors would make stored trajectories disagree with their tasks."""
    first = textcraft.tasks(Split.TRAIN, 0, 1)[0]
    observation = textcraft.make(first, end=End.ON_SUCCESS).reset()
    assert first.id == "golden_axe-1000000"
    assert observation.splitlines()[1:4] == [
        "craft 4 dark oak planks using 1 dark oak log",
        "craft 4 birch planks using 1 birch log",
        "craft 1 wooden axe using 3 planks, 2 stick",
    ]


# ------------------------------------------------------------------------------ plans


def test_the_expert_solves_nearly_all_goals() -> None:
    book = load_book()
    solved: Counter[int] = Counter()
    for number, goal in enumerate(book.recipes):
        t = Task("textcraft", goal, Split.TRAIN, {"goal": goal, "seed": number})
        try:
            actions = textcraft.demonstrate(t, end=End.DECLARED)
        except DemonstrationError:
            continue
        assert len(actions) <= textcraft.ROUND_LIMIT
        solved[book.depth[goal]] += 1
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


# ------------------------------------------------------------------------------ tokens


def test_fixed_phrases_are_in_no_item() -> None:
    for phrase in textcraft.FIXED_PHRASES:
        assert not re.search(r"\d", phrase)
        assert not any(phrase.rstrip(" ") in name for name in load_book().items), phrase
