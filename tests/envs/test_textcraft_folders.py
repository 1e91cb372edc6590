"""TextCraft: folders of recipe files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlprm.envs import textcraft
from rlprm.envs.textcraft import TextCraft, load_book
from rlprm.errors import ConfigError, DataError
from rlprm.types import End, Split
from tests.toys.textcraft import answers


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
        json.dumps(shapeless([item("a")], {"item": "x", "count": float("inf")})),
        "[" * 100_000,
        '{"type": ' + "9" * 5_000 + "}",
        b"\xff\xfe",
    ],
)
def test_a_damaged_recipe_file_is_named(tmp_path: Path, content: str | bytes) -> None:
    (tmp_path / "bad.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=r"bad\.json"):
        textcraft.tasks(Split.TRAIN, 0, 1, recipes=str(tmp_path))


def test_a_byte_order_mark_is_no_damage(folder: str) -> None:
    before = load_book(folder).recipes
    load_book.cache_clear()
    for path in Path(folder).iterdir():
        path.write_text(path.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert load_book(folder).recipes == before


def test_a_folder_that_cannot_be_read_as_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.json").mkdir()
    with pytest.raises(DataError, match=r"bad\.json"):
        textcraft.tasks(Split.TRAIN, 0, 1, recipes=str(tmp_path))


def test_a_folder_in_the_users_home(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(Path(folder).parent))
    at_home = f"~/{Path(folder).name}"
    (task,) = textcraft.tasks(Split.TRAIN, 0, 1, recipes=at_home)
    assert task.spec["recipes"] == at_home
    assert textcraft.make(task, end=End.DECLARED).reset().startswith("Crafting commands:\n")
    for path in ("", "x" * 5_000, "~no-such-user/recipes"):
        with pytest.raises(ConfigError, match="textcraft recipes: got"):
            textcraft.tasks(Split.TRAIN, 0, 1, recipes=path)
