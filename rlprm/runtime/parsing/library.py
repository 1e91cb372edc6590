"""Settings of a library's trainer by name and type, read from its source: importing it takes seconds.

``transformers.TrainingArguments`` has about 120 of them, ``trl.SFTConfig`` more. The ones that people set are
settings of ours (``rlprm.runtime.tuning``); the others are accepted by name and passed on.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rlprm.runtime.parsing.renames import RENAMED_SETTINGS
from rlprm.runtime.settings import declarations

__all__ = ["LibrarySetting", "accepted_names", "library_settings"]


class LibrarySetting(NamedTuple):
    """One setting of a library."""

    name: str
    hint: Any
    """Its type, as far as it is made of Python's own; ``Any`` otherwise."""
    default: str
    """As it is written in the source; empty if it is computed."""
    help: str


_TRANSFORMERS = ("transformers", "training_args.py", "TrainingArguments")
_SOURCES = {
    "transformers.TrainingArguments": (_TRANSFORMERS,),
    "trl.SFTConfig": (
        _TRANSFORMERS,
        ("trl", "trainer/base_config.py", "_BaseConfig"),
        ("trl", "trainer/sft_config.py", "SFTConfig"),
    ),
}
"""Class → (package, file, class) of its bases and itself, the most general first."""
_OF_OURS = frozenset({"remove_unused_columns", "dataset_kwargs"})
"""What the stages' own data needs; not for the user to set."""
_TYPES: dict[str, Any] = {
    "str": str, "int": int, "float": float, "bool": bool, "list": list[Any], "dict": dict[str, Any],
}  # fmt: skip


@functools.cache
def library_settings(name: str) -> dict[str, LibrarySetting]:
    """Return the settings of a library's class, by name; nothing for an empty name.

    Args:
        name: ``"transformers.TrainingArguments"``, ``"trl.SFTConfig"`` or ``""``.
    """
    settings: dict[str, LibrarySetting] = {}
    for package, file, class_name in _SOURCES.get(name, ()):
        for found in _fields(package, file, class_name):
            settings[found.name] = found
    return {name: found for name, found in settings.items() if name not in _OF_OURS}


def accepted_names(config_type: Any) -> set[str]:
    """Return every name under which a stage takes a setting: its own, old ones and those of its library."""
    old = RENAMED_SETTINGS.get(getattr(config_type, "STAGE", ""), {})
    return {*declarations(config_type), *old, *library_settings(getattr(config_type, "LIBRARY", ""))}


def _fields(package: str, file: str, class_name: str) -> Iterator[LibrarySetting]:
    """Yield the fields that a dataclass of a package declares itself."""
    specification = importlib.util.find_spec(package)
    folders = (specification.submodule_search_locations if specification else None) or []
    path = next((Path(folder) / file for folder in folders if (Path(folder) / file).is_file()), None)
    if path is None:  # of another version, whose classes have other bases
        return
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            yield from filter(None, map(_setting, node.body))


def _setting(node: ast.stmt) -> LibrarySetting | None:
    if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
        return None
    if ast.unparse(node.annotation).startswith(("ClassVar", "typing.ClassVar")):
        return None
    default, text = node.value, ""
    if isinstance(default, ast.Call):
        given = {keyword.arg: keyword.value for keyword in default.keywords}
        if isinstance(given.get("init"), ast.Constant) and not given["init"].value:  # type: ignore[attr-defined]
            return None
        default, text = given.get("default"), _help(given.get("metadata"))
    shown = "" if default is None else ast.unparse(default).strip("'\"")
    return LibrarySetting(node.target.id, _hint(node.annotation), shown, text)


def _help(metadata: ast.expr | None) -> str:
    """Return the help of a field's metadata, on one line."""
    if not isinstance(metadata, ast.Dict):
        return ""
    for key, value in zip(metadata.keys, metadata.values, strict=True):
        if isinstance(key, ast.Constant) and key.value == "help":
            texts = [n.value for n in ast.walk(value) if isinstance(n, ast.Constant)]
            return " ".join("".join(map(str, texts)).split())
    return ""


def _hint(annotation: ast.expr) -> Any:
    """Turn an annotation into a type, as far as it is made of Python's own; ``Any`` if that is no help."""
    known, is_complete = _known_types(annotation)
    if not (is_complete or str in known):
        return Any
    return functools.reduce(lambda one, other: one | other, known) if known else Any


def _known_types(annotation: ast.expr) -> tuple[list[Any], bool]:
    """Return the types of Python's own in a union, and whether there are no others."""
    match annotation:
        case ast.Constant(value=None):
            return [type(None)], True
        case ast.Constant(value=text):
            return _known_types(ast.parse(str(text), mode="eval").body)
        case ast.Name(id=name):
            return ([_TYPES[name]], True) if name in _TYPES else ([], False)
        case ast.BinOp(left=left, right=right):
            parts = [left, right]
        case ast.Subscript(value=outer, slice=inner):
            name = ast.unparse(outer).removeprefix("typing.")
            if name.lower() in _TYPES and name.lower() in ("list", "dict"):
                return [_TYPES[name.lower()]], True
            if name == "Optional":
                known, is_complete = _known_types(inner)
                return [*known, type(None)], is_complete
            if name != "Union" or not isinstance(inner, ast.Tuple):
                return [], False
            parts = inner.elts
        case _:
            return [], False
    found = [_known_types(part) for part in parts]
    return [kind for known, _ in found for kind in known], all(complete for _, complete in found)
