"""Recipes with a base and a root: whose setting counts, what ``${root}`` becomes, how mistakes are told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rlprm import cli
from rlprm.errors import ArtifactError, ConfigError
from rlprm.runtime import recipes
from rlprm.runtime.config import parse, setting


@dataclass
class Example:
    model: str = setting("", "A folder.")
    count: int = setting(1, "A number.")
    options: dict[str, Any] = setting({}, "A mapping.")
    names: list[str] = setting([], "A list.")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(**files: str) -> None:
    for name, text in files.items():
        path = Path(f"{name}.yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def read(*arguments: str) -> Example:
    return parse(Example, ["--config", "a.yaml", *arguments])


def test_the_command_line_wins_over_the_recipe_and_the_recipe_over_its_base() -> None:
    write(a="base: b.yaml\nmodel: recipe\ncount: 2", b="model: base\ncount: 3\nnames: [x]")
    assert read("--count", "4") == Example(model="recipe", count=4, names=["x"])


def test_a_later_base_wins_over_an_earlier_one_and_over_its_own_base() -> None:
    write(
        a="base: [b.yaml, c.yaml]",
        b="count: 2\nmodel: b",
        c="base: d.yaml\ncount: 3",
        d="count: 4\nnames: [d]",
    )
    assert read() == Example(model="b", count=3, names=["d"])


def test_a_mapping_of_the_recipe_replaces_the_bases_and_a_dotted_name_changes_one_key() -> None:
    write(a="base: b.yaml\noptions: {x: 1}", b="options: {y: 2}")
    assert read().options == {"x": 1}
    write(a="base: b.yaml")
    assert read("--options.z", "3").options == {"y": 2, "z": 3}


def test_a_base_is_looked_up_beside_the_file_that_names_it(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "deep/a.yaml").write_text("base: ../b.yaml")
    write(b="base: deep/c.yaml")
    (folder / "deep/c.yaml").write_text("count: 7")
    assert parse(Example, ["--config", "deep/a.yaml"]).count == 7


def test_the_root_stands_in_every_text_wherever_it_is_set() -> None:
    write(
        a="base: b.yaml\nmodel: ${root}/policy\noptions: {prm: '${root}/prm', depth: [1, '${root}']}",
        b="root: runs/a/\nnames: ['${root}', other]",
    )
    expected = {"prm": "runs/a/prm", "depth": [1, "runs/a"]}
    assert read() == Example(model="runs/a/policy", options=expected, names=["runs/a", "other"])
    write(a="base: b.yaml\nroot: runs/own\nmodel: ${root}/policy")
    assert read().model == "runs/own/policy"


@pytest.mark.parametrize("given", [["--root", "elsewhere"], ["--root=elsewhere/"]])
def test_one_root_on_the_command_line_moves_every_path(given: list[str]) -> None:
    write(a="base: b.yaml\nmodel: ${root}/policy", b="root: runs/a\nnames: ['${root}/x']")
    moved = read(*given, "--options.prm", "${root}/prm")
    assert moved == Example(model="elsewhere/policy", names=["elsewhere/x"], options={"prm": "elsewhere/prm"})
    assert parse(Example, ["--model", "${root}/p", *given]).model == "elsewhere/p"


def test_a_stage_takes_its_own_settings_of_a_shared_base() -> None:
    write(a="base: b.yaml", b="environment: babyai\nround_limit: 12\ncount: 5")
    assert read() == Example(count=5)


@pytest.mark.parametrize(
    ("files", "arguments", "error", "message"),
    [
        (
            {"a": "model: ${rot}/x"},
            [],
            ConfigError,
            r"model: got '\$\{rot\}/x' in a.yaml, allowed",
        ),
        ({"a": "options: {k: ['${root}']}"}, [], ConfigError, r"options.k: .* but no root is set; .* --root"),
        (
            {"a": "base: no.yaml"},
            [],
            ArtifactError,
            "base: got 'no.yaml', but there is no file no.yaml",
        ),
        ({"a": "base: a.yaml"}, [], ConfigError, "a circle of files: a.yaml -> a.yaml"),
        (
            {"a": "base: b.yaml", "b": "base: a.yaml"},
            [],
            ConfigError,
            "circle of files: a.yaml -> b.yaml",
        ),
        ({"a": "base: 3"}, [], ConfigError, "base: got 3, allowed: a YAML file beside it, or a list of them"),
        ({"a": "base: [b.yaml, 3]"}, [], ConfigError, "base: got .*, allowed: a YAML file beside it"),
        (
            {"a": "base: b.yaml", "b": "enviroment: x"},
            [],
            ConfigError,
            "unknown setting 'enviroment' in b.yaml; did you mean 'environment'",
        ),
        ({"a": "environment: x"}, [], ConfigError, "unknown setting 'environment' in a.yaml"),
        (
            {"a": "base: b.yaml", "b": "[1]"},
            [],
            ConfigError,
            "b.yaml must hold a mapping",
        ),
        ({"a": "root: 3"}, [], ConfigError, "root: got 3, allowed: a folder"),
        ({"a": "root: ${root}/x"}, [], ConfigError, r"root: got '\$\{root\}/x', allowed: a folder"),
        (
            {"a": "model: m"},
            ["--root", "r"],
            ConfigError,
            r"no setting of a.yaml contains \$\{root\}",
        ),
        ({"a": "model: m"}, ["--root"], ConfigError, "--root needs a folder"),
        ({"a": "model: m"}, ["--root", "--model"], ConfigError, "--root needs a folder"),
    ],
)
def test_mistakes_are_one_line(
    files: dict[str, str], arguments: list[str], error: type[Exception], message: str
) -> None:
    write(**files)
    with pytest.raises(error, match=message) as caught:
        read(*arguments)
    assert "\n" not in str(caught.value)


def test_the_settings_of_every_stage_are_those_of_the_command_line() -> None:
    assert recipes.STAGE_SETTINGS.keys() == cli._STAGES.keys()
    for stage in cli._STAGES:
        assert stage == recipes.settings_type(stage).STAGE
