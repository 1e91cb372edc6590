"""Where the recipes and the launch files lie: in a checkout, an editable install and a wheel alike.

``recipes/`` and ``ds_configs/`` stand at the top of the repository. A wheel holds a copy of both in
``rlprm/_resources/`` (see ``setup.py``); a checkout and an editable install read the folders themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import rlprm
from rlprm.errors import ArtifactError

__all__ = ["LAUNCH_FILES", "RECIPES", "find_file", "find_folder", "resource_folder"]

RECIPES = "recipes"
LAUNCH_FILES = "ds_configs"


def resource_folder(name: str) -> Path:
    """Return the folder that is shipped under a name.

    Args:
        name: :data:`RECIPES` or :data:`LAUNCH_FILES`.

    Raises:
        ArtifactError: if this installation lacks it.
    """
    package = Path(rlprm.__file__).resolve().parent
    for folder in (package / "_resources" / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise ArtifactError(f"this installation of rlprm has no {name}/; install it from the repository again")


def find_file(name: str, kind: str) -> Path | None:
    """Return a file: the path itself, else the one below ``kind`` in the current folder, else the shipped.

    Args:
        name: a path, or a path below the shipped folder, which may begin with the folder's own name
            (``recipes/babyai/sft_tiny.yaml``, ``babyai/sft_tiny.yaml``).
        kind: :data:`RECIPES` or :data:`LAUNCH_FILES`.

    Returns:
        None if there is none.
    """
    return _find(Path(name), kind, Path.exists)


def find_folder(name: str, kind: str) -> Path | None:
    """Return a folder, found as :func:`find_file` finds a file."""
    return _find(Path(name), kind, Path.is_dir)


def _find(path: Path, kind: str, is_there: Callable[[Path], bool]) -> Path | None:
    if is_there(path):
        return path
    if path.is_absolute() or ".." in path.parts:
        return None
    below = Path(*(path.parts[1:] if path.parts[:1] == (kind,) else path.parts))
    places = (Path(kind) / below, resource_folder(kind) / below)
    return next((place for place in places if is_there(place)), None)
