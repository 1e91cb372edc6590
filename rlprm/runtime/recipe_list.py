"""``rlprm recipes``: lists the shipped recipes and copies a folder of them."""

from __future__ import annotations

import itertools
import re
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path

from rlprm.errors import ConfigError
from rlprm.runtime.resources import RECIPES, resource_folder

__all__ = ["USAGE", "copy_recipes", "list_recipes", "recipes_command"]

USAGE = "rlprm recipes [ENVIRONMENT] | rlprm recipes copy ENVIRONMENT FOLDER"
_WIDTH = 80
_ENTRY = re.compile(r"#\s*(\w+):\s+(.*)")


def recipes_command(words: Sequence[str]) -> str:
    """Run ``rlprm recipes`` and return what it prints.

    Args:
        words: of the command line, after ``recipes``.

    Raises:
        ConfigError: for an unknown environment, a file that exists already, or words of another form.
    """
    match list(words):
        case ["-h" | "--help"]:
            return f"usage: {USAGE}"
        case []:
            return list_recipes()
        case ["copy", environment, target]:
            return "\n".join(f"wrote {path}" for path in copy_recipes(environment, Path(target)))
        case [environment] if environment != "copy":
            return list_recipes(environment)
    raise ConfigError(f"recipes: got {' '.join(words)!r}, allowed: {USAGE}")


def list_recipes(environment: str | None = None) -> str:
    """Return each recipe's name, as ``--config`` takes it, with its purpose.

    Args:
        environment: list the recipes of this folder only.

    Raises:
        ConfigError: for an unknown environment.
    """
    shipped = resource_folder(RECIPES)
    folders = _environments() if environment is None else [_known(environment)]
    lines = []
    for path in (path for name in folders for path in sorted((shipped / name).glob("[!_]*.yaml"))):
        lines.append(path.relative_to(shipped).as_posix())
        lines += textwrap.wrap(_purpose(path), _WIDTH, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines)


def copy_recipes(environment: str, target: Path) -> list[Path]:
    """Copy a folder of recipes to ``<target>/recipes/<environment>``, where ``--config`` finds it first.

    Returns:
        The files written.

    Raises:
        ConfigError: for an unknown environment, or if a file exists already; nothing is written then.
    """
    source = resource_folder(RECIPES) / _known(environment)
    folder = target / RECIPES / environment
    files = {path: folder / path.name for path in sorted(source.glob("*.yaml"))}
    existing = [str(path) for path in files.values() if path.exists()]
    if existing:
        raise ConfigError(f"recipes copy: {existing[0]} exists already; delete it, or copy to another folder")
    folder.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copyfile(path, copy)) for path, copy in files.items()]


def _environments() -> list[str]:
    return sorted(path.name for path in resource_folder(RECIPES).iterdir() if any(path.glob("*.yaml")))


def _known(environment: str) -> str:
    if environment not in (known := _environments()):
        raise ConfigError(f"recipes: got {environment!r}, allowed: {', '.join(known)}")
    return environment


def _purpose(path: Path) -> str:
    """Return the text of ``# Purpose:`` in a recipe's header."""
    lines = path.read_text(encoding="utf-8").splitlines()
    text: list[str] = []
    for line in itertools.takewhile(lambda line: line.startswith("#"), lines):
        entry = _ENTRY.fullmatch(line)
        if entry and text:
            break
        if entry or text:
            text.append(entry[2] if entry else line[1:].strip())
    return " ".join(text)
