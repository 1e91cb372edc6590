"""The source of the user's own modules, by which a run notices that code was edited.

The source of a built-in component is empty: the version of this package stands for it. The source of a
module in a package is every ``.py`` file of the module's folder. The source of a single file is that file.
Both include what they import, directly or indirectly, from the same topmost package or, for a single file,
from the same folder. Installed packages are not included.
Imports are read from the text (``ast``); data files and imports that are computed at run time are not seen.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlprm.components.files import is_users_place, top_of
from rlprm.components.loading import is_built_in
from rlprm.errors import SOURCES, ConfigError

__all__ = ["remember_source", "source_of", "user_sources"]

log = logging.getLogger(__name__)
_REMEMBERED = "rlprm_source"
"""Attribute of a module's specification: its source at the time of the import."""
_WARNED_OF: list[dict[str, str]] = []

_INSTALLED = frozenset({"site-packages", "dist-packages"})
"""Names of folders whose files are no siblings of one another."""


def user_sources(**components: object) -> dict[str, Any]:
    """Return what belongs to the identity of a run that uses these components.

    Args:
        **components: module of each, by the name that messages use (``environment``, ``reward``, ...).

    Returns:
        ``{"sources": {component: {file: hash}}}``; empty if all components are built in, so that records of
        such runs are those of 0.1.0.
    """
    found = {what: source for what, module in components.items() if (source := source_of(module))}
    return {SOURCES: found} if found else {}


def remember_source(module: object) -> None:
    """Hash the files of a user's module when it is imported: later edits are not the code that runs."""
    spec = getattr(module, "__spec__", None)  # a reload makes a new one
    if spec is not None and not hasattr(spec, _REMEMBERED):
        setattr(spec, _REMEMBERED, _source_on_disk(module))


def source_of(module: object) -> dict[str, str]:
    """Return the files that a user's module consisted of when it was imported, each with a hash.

    A warning names files that were edited since: this process goes on with the code that it imported.

    Returns:
        Path relative to the folder from which the files import one another → first 12 hexadecimal digits of
        its SHA-256. Empty for a built-in component. Any edit counts, that of a comment too.
    """
    remember_source(module)
    imported: dict[str, str] | None = getattr(getattr(module, "__spec__", None), _REMEMBERED, None)
    on_disk = _source_on_disk(module)
    if imported is None:
        return on_disk
    if on_disk != imported and on_disk not in _WARNED_OF:
        _WARNED_OF.append(on_disk)
        edited = sorted(f for f in on_disk.keys() | imported.keys() if on_disk.get(f) != imported.get(f))
        log.warning("%s: edited since it was imported; this process uses the code before the edit, start a "
                    "new one to use the new code", ", ".join(edited))  # fmt: skip
    return imported


def _source_on_disk(module: object) -> dict[str, str]:
    place = getattr(module, "__file__", None)
    if is_built_in(module) or place is None:
        return {}
    file = Path(place).resolve()
    root = _root_of(file, str(getattr(module, "__name__", "")))
    is_package = (file.parent / "__init__.py").exists()
    start = file.parent.rglob("*.py") if is_package else [file]
    within = top_of(file) if is_package else file if root.name in _INSTALLED else root
    found: set[Path] = set()
    waiting = sorted(start)
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += [other for other in _imported(path, root) if other.is_relative_to(within)]
    return {path.relative_to(root).as_posix(): _hash(path) for path in sorted(found)}


def _root_of(file: Path, name: str) -> Path:
    """Return the folder from which absolute imports find the module and its siblings."""
    top = top_of(file)
    if (top / "__init__.py").exists():
        return top.parent
    depth = 0 if ":" in name else name.count(".")  # of a dotted path through folders without __init__.py
    return [top, *top.parents][depth]


def _imported(file: Path, root: Path) -> Iterator[Path]:
    """Yield the files under a root that a file imports, with the packages on the way to them."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files_of(alias.name, root)
        elif isinstance(node, ast.ImportFrom):
            base, module = root, node.module or ""
            if node.level:
                base = [file, *file.parents][node.level]
                if not base.is_relative_to(root):
                    continue
            for name in (module, *(f"{module}.{alias.name}".strip(".") for alias in node.names)):
                yield from _files_of(name, base, relative=bool(node.level))


def _files_of(name: str, base: Path, *, relative: bool = False) -> Iterator[Path]:
    parts = [part for part in name.split(".") if part]
    if not relative and (not parts or not _comes_from(parts[0], base)):
        return
    for number in range(len(parts) + 1):
        path = base.joinpath(*parts[:number])
        if (number or relative) and (path / "__init__.py").is_file():
            yield path / "__init__.py"
        if number and path.with_name(f"{path.name}.py").is_file():
            yield path.with_name(f"{path.name}.py")


def _comes_from(top: str, base: Path) -> bool:
    """Whether ``import top`` finds a file of this folder, and not an installed package of that name.

    Raises:
        ConfigError: if it finds a file of another folder of the user's, so that the wrong code would run.
    """
    if not (base / f"{top}.py").is_file() and not (base / top).is_dir():
        return False
    if top == "rlprm" or top in sys.stdlib_module_names or top in sys.builtin_module_names:
        return False
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return True
    if spec is None:
        return True
    places = [spec.origin] if spec.origin else []
    places += spec.submodule_search_locations or []
    if any(Path(place).resolve().is_relative_to(base) for place in places):
        return True
    for place in map(Path, places):
        if any(is_users_place(folder) for folder in (place.parent, place.parent.parent)):
            raise ConfigError(
                f"a file in {base} imports {top!r}, and gets {place} instead of the {top!r} beside it; "
                f"write `from . import {top}`"
            )
    return False


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
