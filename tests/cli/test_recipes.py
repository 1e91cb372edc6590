"""Every recipe parses as its stage's configuration, and says what it is for."""

from __future__ import annotations

import importlib
import itertools
import re
from pathlib import Path

import pytest

from rlprm.cli import _STAGES
from rlprm.config import parse

ROOT = Path(__file__).parents[2]
RECIPES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "recipes").rglob("*.yaml"))
STAGE_OF = {stage.replace("-", "_"): stage for stage in _STAGES} | {
    "pretrain": "sft",
    "train_orm": "train-prm",
    "train_pvm": "train-prm",
}
"""First part of a recipe's file name → stage."""


def stage_of(recipe: str) -> str:
    """Stage of ``<stage>_<model>.yaml``."""
    (found,) = (stage for name, stage in STAGE_OF.items() if Path(recipe).stem.startswith(name + "_"))
    return found


def header(recipe: str) -> dict[str, str]:
    lines = (ROOT / recipe).read_text().splitlines()
    comments = [line[1:].strip() for line in itertools.takewhile(lambda line: line.startswith("#"), lines)]
    return dict(re.split(r":\s+", c, maxsplit=1) for c in comments if re.match(r"\w+:\s", c))


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
