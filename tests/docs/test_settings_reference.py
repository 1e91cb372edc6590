"""The reference of settings and the schemas for editors are those that their script would write now."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from rlprm.runtime.parsing.library import library_settings
from rlprm.runtime.recipes import STAGE_SETTINGS, settings_type
from rlprm.runtime.settings import declarations
from tests.cli.recipes import RECIPES, stage_of

ROOT = Path(__file__).parents[2]


def script() -> ModuleType:
    specification = importlib.util.spec_from_file_location(
        "make_reference", ROOT / "scripts/make_reference.py"
    )
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


FILES: dict[Path, str] = script().files()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_is_up_to_date(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == FILES[path], "run: python scripts/make_reference.py"


def properties(stage: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILES[ROOT / f"docs/schema/{stage}.json"])["properties"]
    return found


@pytest.mark.parametrize("stage", STAGE_SETTINGS)
def test_a_schema_knows_every_setting_with_its_bounds(stage: str) -> None:
    assert properties(stage).keys() == {*declarations(settings_type(stage)), "base", "root"}
    for name, declared in declarations(settings_type(stage)).items():
        held = properties(stage)[name]
        held = held.get("items", held)
        assert (held.get("minimum"), held.get("exclusiveMinimum")) == (declared.least, declared.above)
        assert (held.get("maximum"), held.get("exclusiveMaximum")) == (declared.most, declared.below)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_has_only_names_of_its_schema_and_of_the_library(recipe: str) -> None:
    settings = yaml.safe_load((ROOT / recipe).read_text(encoding="utf-8"))
    stage = stage_of(recipe)
    library = library_settings(settings_type(stage).LIBRARY)
    assert settings.keys() <= properties(stage).keys() | library.keys()


def test_the_page_names_every_setting() -> None:
    page = FILES[ROOT / "docs/settings.md"]
    for stage in STAGE_SETTINGS:
        section = page.partition(f"## {stage}\n")[2].partition("\n## ")[0]
        for name in declarations(settings_type(stage)):
            assert f"| `{name}` |" in section
