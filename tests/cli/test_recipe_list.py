"""``rlprm recipes``: lists every shipped recipe with its purpose, copies a folder, overwrites nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlprm import cli
from rlprm.runtime.resources import RECIPES, find_file
from tests.cli.recipes import BASES, ROOT, header
from tests.cli.recipes import RECIPES as NAMES


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.main(["recipes", *words]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.main(["recipes", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_every_recipe_is_listed_with_its_purpose_in_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys).splitlines()
    assert [f"recipes/{line}" for line in lines if not line.startswith(" ")] == sorted(NAMES)
    assert max(map(len, lines)) <= 80
    text = " ".join(line.strip() for line in lines)
    for recipe in NAMES:
        assert f"{recipe.removeprefix('recipes/')} {header(recipe)['Purpose'].split('. ')[0]}" in text


def test_one_environment_is_listed_alone(capsys: pytest.CaptureFixture[str]) -> None:
    names = [line for line in printed(capsys, "math").splitlines() if not line.startswith(" ")]
    assert [f"recipes/{name}" for name in names] == [
        n for n in sorted(NAMES) if n.startswith("recipes/math/")
    ]


def test_a_copy_is_complete_named_and_found_before_the_shipped_one(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = printed(capsys, "copy", "babyai", ".").splitlines()
    expected = sorted(name for name in (*NAMES, *BASES) if name.startswith("recipes/babyai/"))
    assert said == [f"wrote {name}" for name in expected]
    assert all(Path(name).read_bytes() == (ROOT / name).read_bytes() for name in expected)
    assert find_file("babyai/sft_tiny.yaml", RECIPES) == Path("recipes/babyai/sft_tiny.yaml")


def test_no_file_is_overwritten(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = elsewhere / "here/recipes/math/sft_tiny.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("seed: 1")
    line = refused(capsys, "copy", "math", "here")
    assert "here/recipes/math/sft_tiny.yaml exists already" in line
    assert [path for path in elsewhere.rglob("*") if path.is_file()] == [own]
    assert own.read_text() == "seed: 1"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["copy", "no", "."], "recipes: got 'no', allowed: agentgym, babyai, math"),
        (["no"], "recipes: got 'no', allowed: agentgym, babyai"),
        (["copy"], "allowed: rlprm recipes [ENVIRONMENT] | rlprm recipes copy ENVIRONMENT FOLDER"),
        (["copy", "math"], "recipes: got 'copy math', allowed: rlprm recipes"),
        (["copy", "..", "."], "recipes: got '..', allowed"),
    ],
)
def test_mistakes_are_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refused(capsys, *words)
