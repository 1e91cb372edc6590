"""Every recipe parses as its stage's configuration, and says what it is for."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from rlprm.cli import _STAGES
from rlprm.runtime.config import parse
from tests.cli.recipes import RECIPES, ROOT, header, stage_of


def test_there_are_recipes() -> None:
    assert {"sft", "collect", "train-prm", "evaluate"} <= {stage_of(recipe) for recipe in RECIPES}


@pytest.mark.parametrize("recipe", RECIPES)
def test_it_parses(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    module, config, _ = _STAGES[stage_of(recipe)]
    parse(getattr(importlib.import_module(module), config), ["--config", recipe])


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
        module, config, _ = _STAGES[stage_of(recipe)]
        words = re.findall(r'"[^"]*"|\S+', found["Override"].split(f"rlprm {stage_of(recipe)} ", 1)[1])
        parse(getattr(importlib.import_module(module), config), [word.strip('"') for word in words])


@pytest.mark.parametrize("recipe", RECIPES)
def test_models_and_data_come_from_a_recipe_beside_it(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a stage reads under runs/ is, or lies in, a folder that another recipe beside it writes."""
    monkeypatch.chdir(ROOT)
    text = (ROOT / recipe).read_text()
    read = set(re.findall(r"^(?!output)\s*\w+: (runs/\S+)", text, flags=re.MULTILINE))
    beside = "".join(path.read_text() for path in (ROOT / recipe).parent.glob("*.yaml"))
    written = set(re.findall(r"^output_dir: (runs/\S+)", beside, flags=re.MULTILINE))
    assert {path for path in read if not {path, *map(str, Path(path).parents)} & written} == set()
