"""Every recipe parses as its stage's configuration, and says what it is for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from rlprm.runtime.config import parse
from rlprm.runtime.recipes import settings_type
from tests.cli.recipes import BASES, RECIPES, ROOT, header, settings_of, stage_of


def test_there_are_recipes() -> None:
    assert {"sft", "collect", "train-prm", "evaluate"} <= {stage_of(recipe) for recipe in RECIPES}


@pytest.mark.parametrize("recipe", RECIPES)
def test_it_parses(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    parse(settings_type(stage_of(recipe)), ["--config", recipe])


@pytest.mark.parametrize("recipe", RECIPES)
def test_its_header_says_how_to_use_it(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = header(recipe)
    assert {"Purpose", "Hardware", "Launch", "Override"} <= found.keys()
    for line in (found["Launch"], found["Override"]):
        assert f"--config {recipe}" in line
        script = f"scripts/{stage_of(recipe).replace('-', '_')}.py"
        assert f"rlprm {stage_of(recipe)} " in line or script in line
    if "rlprm " in found["Override"]:
        monkeypatch.chdir(ROOT)
        words = re.findall(r'"[^"]*"|\S+', found["Override"].split(f"rlprm {stage_of(recipe)} ", 1)[1])
        parse(settings_type(stage_of(recipe)), [word.strip('"') for word in words])


@pytest.mark.parametrize("recipe", RECIPES)
def test_models_and_data_come_from_a_recipe_beside_it(recipe: str) -> None:
    """What a stage reads under runs/ is, or lies in, a folder that another recipe beside it writes."""
    settings = settings_of(recipe)
    del settings["output_dir"]
    read = set(re.findall(r"'(runs/[^']+)'", str(settings)))
    beside = [name for name in RECIPES if Path(name).parent == Path(recipe).parent]
    written = {settings_of(name)["output_dir"] for name in beside}
    assert {path for path in read if not {path, *map(str, Path(path).parents)} & written} == set()


@pytest.mark.parametrize("recipe", RECIPES)
def test_one_root_moves_all_that_is_read_or_written(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    arguments = ["--config", recipe, "--root", "elsewhere"]
    moved = parse(settings_type(stage_of(recipe)), arguments)
    values = [str(getattr(moved, name, None)) for name in settings_of(recipe)]
    assert moved.output_dir.startswith("elsewhere/")
    assert not [value for value in values if "runs/" in value]


@pytest.mark.parametrize("base", BASES)
def test_a_base_says_what_it_holds_and_every_recipe_of_its_kind_has_it(base: str) -> None:
    assert {"Purpose", "Override"} <= header(base).keys()
    kind = Path(base).stem.removeprefix("_")
    mine = [r for r in RECIPES if Path(r).parent == Path(base).parent and kind in Path(r).stem]
    assert mine
    assert {yaml.safe_load((ROOT / r).read_text())["base"] for r in mine} == {Path(base).name}
