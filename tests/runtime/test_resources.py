"""Recipes and launch files are found by name from any folder; a path that exists is taken first."""

from __future__ import annotations

from pathlib import Path

import pytest

import rlprm
from rlprm.errors import ArtifactError
from rlprm.runtime import resources
from rlprm.runtime.resources import LAUNCH_FILES, RECIPES, find_file, find_folder, resource_folder

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_checkout_reads_its_own_folders() -> None:
    assert resource_folder(RECIPES) == ROOT / "recipes"
    assert resource_folder(LAUNCH_FILES) == ROOT / "ds_configs"


def test_a_wheel_reads_its_copy(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = elsewhere / "site-packages/rlprm/_resources/recipes"
    copy.mkdir(parents=True)
    (elsewhere / "site-packages/recipes").mkdir()  # of another package
    monkeypatch.setattr(rlprm, "__file__", str(elsewhere / "site-packages/rlprm/__init__.py"))
    assert resource_folder(RECIPES) == copy
    with pytest.raises(ArtifactError, match="this installation of rlprm has no ds_configs/"):
        resource_folder(LAUNCH_FILES)


@pytest.mark.parametrize("name", ["babyai/sft_tiny.yaml", "recipes/babyai/sft_tiny.yaml"])
def test_a_path_that_exists_comes_before_the_shipped_recipe(name: str, elsewhere: Path) -> None:
    assert find_file(name, RECIPES) == ROOT / "recipes/babyai/sft_tiny.yaml"
    (elsewhere / name).parent.mkdir(parents=True)
    (elsewhere / name).write_text("seed: 1")
    assert find_file(name, RECIPES) == Path(name)


def test_a_copy_in_the_current_folder_comes_before_the_shipped_recipe(elsewhere: Path) -> None:
    copy = Path("recipes/babyai/sft_tiny.yaml")
    copy.parent.mkdir(parents=True)
    copy.write_text("seed: 1")
    assert find_file("babyai/sft_tiny.yaml", RECIPES) == copy
    assert find_file("babyai/collect_tiny.yaml", RECIPES) == ROOT / "recipes/babyai/collect_tiny.yaml"


def test_a_folder_is_found_the_same_way(elsewhere: Path) -> None:
    assert find_folder("recipes/babyai", RECIPES) == find_folder("babyai", RECIPES) == ROOT / "recipes/babyai"
    (elsewhere / "babyai").mkdir()
    assert find_folder("babyai", RECIPES) == Path("babyai")


@pytest.mark.parametrize("name", ["babyai/no.yaml", "../pyproject.toml", "/babyai/sft_tiny.yaml"])
def test_what_is_not_shipped_is_none(name: str) -> None:
    assert find_file(name, RECIPES) is None
    assert resources.find_folder("no", RECIPES) is None
