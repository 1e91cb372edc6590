"""Components are found by name or dotted path; a wrong name lists the right ones."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rlprm import envs
from rlprm.components import available_in, load_component
from rlprm.errors import ConfigError, UnknownComponentError
from tests.toys import corridor


def test_modules_of_a_package_are_listed_without_helpers() -> None:
    assert envs.available() == sorted(envs.available())
    assert "babyai" in envs.available()
    assert "base" not in envs.available()
    assert "_checks" not in available_in("rlprm.functional")
    assert "masking" in available_in("rlprm.functional")


def test_a_component_is_found_by_name_or_by_dotted_path() -> None:
    assert envs.load("babyai").__name__ == "rlprm.envs.babyai"  # type: ignore[attr-defined]
    assert envs.load("tests.toys.corridor") is corridor  # type: ignore[comparison-overlap]
    assert load_component("rlprm.functional", "losses", "x").__name__ == "rlprm.functional.losses"


@pytest.mark.parametrize("name", ["babyia", "base", "", "_private", ".babyai", "babyai.", "..", "rlprm/envs"])
def test_a_wrong_name_lists_the_right_ones(name: str) -> None:
    with pytest.raises(UnknownComponentError, match=r"environment .*babyai") as caught:
        envs.load(name)
    assert isinstance(caught.value, ConfigError)


@pytest.mark.parametrize("name", ["tests.toys.no_such", "no_such.module", "tests.toys.corridor.deeper"])
def test_a_dotted_path_to_nothing_is_named(name: str) -> None:
    with pytest.raises(UnknownComponentError, match=f"no environment at the dotted path '{name}'"):
        envs.load(name)


def test_what_a_users_module_itself_misses_is_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "a_users_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "world.py").write_text("import a_library_nobody_has\n")
    (package / "broken.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        with pytest.raises(ConfigError, match=r"world\.py, line 1: No module named 'a_library_nobody_has'"):
            envs.load("a_users_package.world")
        with pytest.raises(ZeroDivisionError):
            envs.load("a_users_package.broken")
    finally:
        sys.modules.pop("a_users_package", None)
