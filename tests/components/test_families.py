"""Every family: built-in modules keep the contract; a user's module is found by path and by dotted path."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pytest

from rlprm.components import canonical, source_of
from rlprm.errors import ConfigError, UnknownComponentError
from tests.components.families import FAMILIES, Family, text_of


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])


def test_built_in_modules_define_what_is_required(family: Family) -> None:
    assert family.package.available()
    for name in family.package.available():
        module = family.package.load(name)
        assert [required for required in family.package.REQUIRED if not hasattr(module, required)] == []
        assert source_of(module) == {}


def test_what_is_required_is_what_the_protocol_declares(family: Family) -> None:
    declared = {*vars(family.protocol), *family.protocol.__annotations__}
    public = {name for name in declared if not name.startswith("_")}
    assert public == {*family.package.REQUIRED, *family.optional}


def test_a_file_is_found_by_any_path_to_it(family: Family, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    file = tmp_path / "inner" / "mine.py"
    file.write_text(text_of(family.example))
    paths = ["inner/mine.py", "./inner/mine.py", "inner/../inner/mine.py", str(file)]
    modules = {id(family.package.load(path)) for path in paths}
    assert len(modules) == 1
    assert {canonical(path) for path in paths} == {"inner/mine.py"}
    module = family.package.load(paths[0])
    assert Path(module.__file__) == file
    assert list(source_of(module)) == ["mine.py"]


def test_a_file_outside_the_current_folder_keeps_its_path(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(text_of(family.example))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert canonical("../mine.py") == str(tmp_path / "mine.py")
    assert Path(family.package.load("../mine.py").__file__) == tmp_path / "mine.py"


def test_a_path_to_nothing_is_named(family: Family) -> None:
    with pytest.raises(UnknownComponentError, match=f"no {family.noun} at './nowhere.py'"):
        family.package.load("./nowhere.py")


def test_a_name_of_the_standard_library_lists_the_right_ones(family: Family) -> None:
    known = family.package.available()[0]
    with pytest.raises(UnknownComponentError, match=f"unknown {family.noun} 'antigravity'; known: .*{known}"):
        family.package.load("antigravity")
    assert "antigravity" not in sys.modules


def test_what_is_not_defined_is_named(family: Family, tmp_path: Path) -> None:
    *others, last = family.package.REQUIRED
    (tmp_path / "half.py").write_text("".join(f"{name} = None\n" for name in others))
    with pytest.raises(
        ConfigError, match=rf"the {family.noun} \./half\.py does not define {last}; required: "
    ):
        family.package.load("./half.py")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ndef broken(:\n", r"has a syntax error: .*mine\.py, line 2: invalid syntax"),
        ("x = 1\n\nimport no_such_package\n", r"mine\.py, line 3: No module named 'no_such_package'"),
        ("from json import no_such_name\n", r"mine\.py, line 1: cannot import name 'no_such_name'"),
        ("from . import no_such_sibling\n", r"mine\.py, line 1: cannot import name 'no_such_sibling'"),
    ],
)
def test_what_keeps_a_file_from_being_imported_is_one_line(
    family: Family, tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        family.package.load("mine.py")
    assert "\n" not in str(caught.value)
    assert f"{family.noun} 'mine.py'" in str(caught.value)


def test_another_error_of_a_module_keeps_its_traceback(family: Family, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        family.package.load("mine.py")


def test_siblings_are_imported_by_name_or_relatively_with_or_without_a_package(
    family: Family, tmp_path: Path
) -> None:
    for package in (False, True):
        folder = tmp_path / f"{family.noun.replace(' ', '_')}_{package}"
        (folder / "deep").mkdir(parents=True)
        if package:
            (folder / "__init__.py").write_text("")
            (folder / "deep" / "__init__.py").write_text("")
        helper = f"{folder.name}_numbers"
        (folder / f"{helper}.py").write_text("TWO = 2\n")
        (folder / "relative.py").write_text("THREE = 3\n")
        absolute = f"{folder.name}.{helper}" if package else helper
        above = "from ..relative import THREE as ABOVE\n" if package else "ABOVE = 3\n"
        own = f"from {absolute} import TWO\nfrom .relative import THREE\n"
        (folder / "mine.py").write_text(f"{text_of(family.example)}\n{own}")
        (folder / "deep" / "mine.py").write_text(f"{text_of(family.example)}\n{above}")
        module = family.package.load(f"{folder.name}/mine.py")
        assert (module.TWO, module.THREE) == (2, 3)
        assert family.package.load(f"{folder.name}/deep/mine.py").ABOVE == 3
        files = {Path(file).name for file in source_of(module)}
        assert {"mine.py", "relative.py", f"{helper}.py"} <= files
        assert sys.path[-1] == str(folder.parent if package else folder / "deep")


def test_functions_of_a_file_can_be_pickled(family: Family, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(text_of(family.example))
    module = family.package.load("mine.py")
    function = next(
        getattr(module, name) for name in family.package.REQUIRED if callable(getattr(module, name))
    )
    text = pickle.dumps(function)
    del sys.modules[module.__name__]  # as in a process that has not loaded it
    again = pickle.loads(text)
    assert again is not function
    assert again.__code__.co_filename == str(tmp_path / "mine.py")
