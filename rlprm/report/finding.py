"""What the folders of a run hold, whatever the stages were and wherever they wrote."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlprm.errors import ArtifactError
from rlprm.report.values import read_mapping

__all__ = ["Part", "Run", "find_run", "find_runs"]

_RECORD, _META, _JOURNAL = "stage.json", "meta.json", "metrics.jsonl"
_DEPTH = 3
"""Levels of folders below a run that are looked into."""
_HOLDERS = ("evaluate", "train-rl", "trajectories")
"""Parts whose folders are not looked into: what lies there is shown with the part."""


@dataclass(frozen=True)
class Part:
    """One folder that a stage wrote."""

    stage: str
    """Name of the stage, or ``trajectories`` for a folder of trajectories without a record."""
    folder: Path
    record: Mapping[str, Any]
    """What ``stage.json`` holds; empty if the stage has not finished."""

    @property
    def config(self) -> Mapping[str, Any]:
        """Settings of the stage, as far as they are known."""
        return _mapping(self.record.get("config"))

    @property
    def results(self) -> Mapping[str, Any]:
        """What the stage says of its result."""
        return _mapping(self.record.get("results"))

    @property
    def is_finished(self) -> bool:
        """Whether the stage came to its end."""
        return bool(self.record)


@dataclass(frozen=True)
class Run:
    """A folder that the user names, and the stages that wrote into it."""

    name: str
    folder: Path
    parts: tuple[Part, ...]

    def of(self, stage: str) -> list[Part]:
        """Return the parts of one stage."""
        return [part for part in self.parts if part.stage == stage]

    def title_of(self, part: Part) -> str:
        """Return the name of a part within its run."""
        inside = part.folder.relative_to(self.folder).as_posix()
        return self.name if inside == "." else inside


def find_run(folder: str | Path) -> Run:
    """Return what a folder holds: the results of one stage, or of several in folders below.

    Raises:
        ArtifactError: if no stage wrote there.
    """
    path = Path(folder)
    if not path.is_dir():
        raise ArtifactError(
            f"{folder}: no such folder; name the folder of a run, for instance runs/quickstart"
        )
    parts = tuple(_parts(path, _DEPTH))
    if not parts:
        raise ArtifactError(f"{folder}: no stage has written anything here or in the folders below")
    return Run(path.resolve().name, path, parts)


def find_runs(root: str | Path) -> list[Run]:
    """Return the runs below a folder: each folder with results of its own, or with folders of results in it.

    Raises:
        ArtifactError: if there is no such folder.
    """
    path = Path(root)
    if not path.is_dir():
        raise ArtifactError(f"{root}: no such folder")
    runs = []
    for folder in sorted(p for p in path.iterdir() if p.is_dir() and not p.is_symlink()):
        parts = tuple(_parts(folder, _DEPTH - 1))
        if parts:
            runs.append(Run(folder.name, folder, parts))
    return runs


def _parts(folder: Path, depth: int) -> Iterator[Part]:
    part = _part(folder)
    if part is not None:
        yield part
        if part.stage in _HOLDERS:
            return
    if depth == 0:
        return
    try:
        below = sorted(entry.path for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False))
    except OSError:
        return
    for path in below:
        yield from _parts(Path(path), depth - 1)


def _part(folder: Path) -> Part | None:
    record = read_mapping(folder / _RECORD)
    if isinstance(record.get("stage"), str):
        return Part(record["stage"], folder, record)
    if (folder / _JOURNAL).is_file() and (folder / "before.json").is_file():  # a run that goes on
        return Part("train-rl", folder, {})
    if read_mapping(folder / _META).get("holds") == "trajectories":
        return Part("trajectories", folder, {})
    if (folder / "pool" / _META).is_file():  # an evaluation that runs, or was killed
        return Part("evaluate", folder, {})
    return None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
