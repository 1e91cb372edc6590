"""Modules that are given as the path of a file.

A file is loaded under a private name that holds the path of its folder. A worker process that unpickles an
object of such a module can therefore import the module again, as it can any other module.

* The folder becomes a package under the private name, with or without ``__init__.py``. A file imports a
  sibling with ``from . import sibling``. A file inside a package is a module of the topmost package.
* The folder (of a package: the folder that holds the topmost package) is appended to the import path, so that
  ``import sibling`` works as in a script. The standard library and installed packages come first.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

from rlprm.errors import UnknownComponentError

__all__ = ["canonical", "import_file", "is_path", "is_users_place", "top_of"]

_PREFIX = "rlprm_file:"
_appended: set[str] = set()


def is_path(name: str) -> bool:
    """Whether a component's name is the path of a file."""
    return name.endswith(".py")


def canonical(name: str) -> str:
    """Return the name that is stored for a component; two paths of one file give the same name.

    Returns:
        For a path: the path relative to the current folder, or the absolute path of a file outside the
        current folder. Any other name stays as it is.
    """
    if not is_path(name):
        return name
    path = Path(name).expanduser().resolve()
    here = Path.cwd()
    return (path.relative_to(here) if path.is_relative_to(here) else path).as_posix()


def import_file(name: str, family: str) -> ModuleType:
    """Import the file at a path.

    Raises:
        UnknownComponentError: if there is no such file, or its name cannot be a module's.
    """
    path = Path(name).expanduser().resolve()
    if not path.is_file():
        raise UnknownComponentError(f"no {family} at {name!r}: there is no such file")
    if "." in path.stem:
        raise UnknownComponentError(f"no {family} at {name!r}: a module's name has no dot before .py")
    top = top_of(path)
    _append(str(top.parent if (top / "__init__.py").exists() else top))
    inner = path.relative_to(top).with_suffix("").parts
    parts = inner[:-1] if path.name == "__init__.py" else inner
    importlib.invalidate_caches()
    return importlib.import_module(".".join([_private_name(top), *parts]))


def top_of(file: Path) -> Path:
    """Return the topmost package a file is in; its folder if that is no package."""
    top = file.parent
    while (top / "__init__.py").exists() and (top.parent / "__init__.py").exists():
        top = top.parent
    return top


def is_users_place(folder: Path) -> bool:
    """Whether a folder is on the import path because of the user's files: current, or appended."""
    return folder == Path.cwd() or str(folder) in _appended


def _append(folder: str) -> None:
    _appended.add(folder)
    if folder not in sys.path:
        sys.path.append(folder)


def _private_name(folder: Path) -> str:
    return _PREFIX + str(folder).replace("%", "%25").replace(".", "%2E")


class _FolderFinder:
    """Imports a folder under its private name."""

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(_PREFIX) or "." in fullname:
            return None
        folder = Path(fullname.removeprefix(_PREFIX).replace("%2E", ".").replace("%25", "%"))
        init = folder / "__init__.py"
        if init.exists():
            return spec_from_file_location(fullname, init, submodule_search_locations=[str(folder)])
        spec = ModuleSpec(fullname, None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
        return spec


sys.meta_path.append(_FolderFinder)
