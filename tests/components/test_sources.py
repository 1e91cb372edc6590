"""The source of a user's module: which files it is, and when a run is refused because one has changed."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rlprm import envs
from rlprm.components import source_of, user_sources
from rlprm.components.files import import_file
from rlprm.errors import ConfigError, MismatchError, refuse_other_settings


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def do(**files: str) -> Path:
        for name, text in files.items():
            path = tmp_path / f"{name.replace('__', '/').replace('INIT', '__init__')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return do


def files_of(path: Path) -> set[str]:
    return set(source_of(import_file(str(path), "thing")))


def test_a_single_file_is_itself_and_the_siblings_it_imports_directly_or_indirectly(
    write: Callable[..., Path],
) -> None:
    folder = write(
        world="import near_one\nfrom . import beside\nfrom .more import deep\n",
        near_one="import near_two\n",
        near_two="import near_one  # and back\n",
        beside="",
        more__deep="def late():\n    import near_three\n",
        near_three="",
        unrelated="1 / 0\n",
    )
    expected = {"world.py", "near_one.py", "near_two.py", "beside.py", "more/deep.py", "near_three.py"}
    assert files_of(folder / "world.py") == expected


def test_a_file_named_like_a_library_is_no_sibling_unless_it_is_imported_relatively(
    write: Callable[..., Path],
) -> None:
    folder = write(
        world="import random\nimport numpy\nfrom . import own_random\n", random="", numpy="",
        own_random="from . import json\n", json="",
    )  # fmt: skip
    assert files_of(folder / "world.py") == {"world.py", "own_random.py", "json.py"}


def test_a_module_in_a_package_is_every_file_of_its_folder_and_what_they_import_from_the_package(
    write: Callable[..., Path],
) -> None:
    folder = write(
        house__INIT="", house__tools="", house__other="", house__garden__INIT="",
        house__garden__flower="", house__rooms__INIT="", house__rooms__world="from house.tools import *\n",
        house__rooms__unused="from ..garden import flower\n", house__rooms__deep__more="", outside="",
    )  # fmt: skip
    expected = {
        "house/__init__.py", "house/tools.py", "house/garden/__init__.py", "house/garden/flower.py",
        "house/rooms/__init__.py", "house/rooms/world.py", "house/rooms/unused.py",
        "house/rooms/deep/more.py",
    }  # fmt: skip
    assert files_of(folder / "house/rooms/world.py") == expected
    sys.path.append(str(folder))
    by_name = importlib.import_module("house.rooms.world")
    assert source_of(by_name) == source_of(import_file(str(folder / "house/rooms/world.py"), "thing"))


def test_a_sibling_that_another_folder_provides_is_refused(write: Callable[..., Path]) -> None:
    """Both folders are on the import path: the second file would silently run the first one's helper."""
    folder = write(
        one__world="import a_helper\n", one__a_helper="", two__world="import a_helper\n", two__a_helper="",
        three__world="from . import a_helper\n", three__a_helper="",
    )  # fmt: skip
    assert files_of(folder / "one/world.py") == {"world.py", "a_helper.py"}
    message = r"gets .*/one/a_helper\.py instead of .* write `from \. import a_helper`"
    with pytest.raises(ConfigError, match=message):
        files_of(folder / "two/world.py")
    assert files_of(folder / "three/world.py") == {"world.py", "a_helper.py"}


def test_a_package_beside_it_or_an_installed_one_is_not_its_source(write: Callable[..., Path]) -> None:
    folder = write(
        own__INIT="", own__world="import beside_it\nimport rlprm.types\n", beside_it__INIT="",
        rlprm__INIT="", rlprm__types="",
    )  # fmt: skip
    sys.path.append(str(folder))
    assert set(source_of(importlib.import_module("own.world"))) == {"own/__init__.py", "own/world.py"}
    places = folder / "lib" / "site-packages"
    places.mkdir(parents=True)
    (places / "single_world.py").write_text("import another_package\n")
    (places / "another_package.py").write_text("")
    sys.path.append(str(places))
    assert set(source_of(importlib.import_module("single_world"))) == {"single_world.py"}


def test_an_edit_counts_after_the_next_import_and_changes_the_hash_of_its_file_alone(
    write: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder = write(world="import edited_sibling\n", edited_sibling="X = 1\n")
    module = import_file(str(folder / "world.py"), "thing")
    before = source_of(module)
    (folder / "edited_sibling.py").write_text("X = 1  # a comment is an edit, too\n")
    assert source_of(module) == before  # the code that this process runs
    assert "edited_sibling.py: edited since it was imported" in caplog.text
    after = source_of(importlib.reload(module))
    assert after["world.py"] == before["world.py"]
    assert after["edited_sibling.py"] != before["edited_sibling.py"]


def test_built_in_components_add_nothing_to_a_record() -> None:
    assert user_sources(environment=envs.load("textcraft")) == {}


BEFORE = {"a": 1, "sources": {"environment": {"world.py": "1", "old.py": "2"}, "reward": {"pay.py": "3"}}}


@pytest.mark.parametrize(
    ("now", "message"),
    [
        ({"world.py": "9", "old.py": "2"}, "world.py of the environment has changed"),
        ({"world.py": "1"}, "old.py of the environment is gone"),
        ({"world.py": "1", "old.py": "2", "new.py": "4"}, "new.py of the environment is new"),
    ],
)
def test_a_changed_file_is_named(now: dict[str, str], message: str) -> None:
    wanted = {"a": 1, "sources": {"environment": now, "reward": {"pay.py": "3"}}}
    with pytest.raises(
        MismatchError, match=rf"runs/a was made with other code \({message}\); choose"
    ) as caught:
        refuse_other_settings("runs/a was made", BEFORE, wanted)
    assert "\n" not in str(caught.value)
    refuse_other_settings("runs/a was made", BEFORE, dict(BEFORE))


def test_a_record_without_sources_is_accepted_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    refuse_other_settings("runs/a was made", {"a": 1}, BEFORE)
    assert "environment and reward could not be compared" in caplog.text
    caplog.clear()
    caplog.set_level(logging.INFO)
    refuse_other_settings("runs/a was made", {"a": 1}, {"a": 1})
    assert caplog.records == []
    with pytest.raises(MismatchError, match="a: 2 there, 1 now"):
        refuse_other_settings("runs/a was made", {"a": 2}, BEFORE)
