"""A folder of JSON-lines shards: how long work survives being killed.

    <folder>/meta.json            what it holds, and with which settings it was made
    <folder>/wave-00000.jsonl     one row a line

A shard appears whole or not at all; work goes on with those that are missing.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

from rlprm.errors import ArtifactError, DataError, refuse_other_settings
from rlprm.runtime.files import read_json, write_atomically, write_json
from rlprm.runtime.parsing.renames import with_old_defaults

__all__ = ["FORMAT", "Shards"]

FORMAT = 1
_KIND = "holds"
_SHARD = re.compile(r"wave-(\d{5,})\.jsonl")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Shards:
    """A folder of numbered shards; a subclass says what a row is."""

    folder: Path
    meta: Mapping[str, Any]

    HOLDS: ClassVar[str] = "rows"
    """What the rows are, for messages."""

    @classmethod
    def create(cls, folder: str | Path, meta: Mapping[str, Any]) -> Self:
        """Open a folder for writing: a new one, one without rows, or one with exactly these settings.

        Raises:
            MismatchError: if the folder holds rows made with other settings.
        """
        folder = Path(folder)
        wanted = json.loads(json.dumps({"format": FORMAT, _KIND: cls.HOLDS, **meta}))
        path = folder / "meta.json"
        if path.exists() and _numbered(folder):
            before = {_KIND: cls.HOLDS, **cls.current_meta(_read_meta(folder))}
            refuse_other_settings(f"{folder} holds {before[_KIND]} made", before, wanted)
        else:
            write_json(path, wanted)
        return cls(folder, wanted)

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Open an existing folder for reading.

        Raises:
            ArtifactError: if there is none, or it holds something else.
            DataError: if another version of this package wrote it.
        """
        folder = Path(folder)
        if not (folder / "meta.json").exists():
            raise ArtifactError(f"no {cls.HOLDS} at {folder} (expected {folder / 'meta.json'})")
        meta = _read_meta(folder)
        if meta.get("format") != FORMAT:
            raise DataError(f"{folder} has format {meta.get('format')!r}, this version reads {FORMAT}")
        if (kind := meta.get(_KIND, cls.HOLDS)) != cls.HOLDS:
            raise ArtifactError(f"no {cls.HOLDS} at {folder}: it holds {kind}")
        return cls(folder, cls.current_meta(meta))

    @classmethod
    def current_meta(cls, meta: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return stored settings as this version names them; a subclass knows which names have changed."""
        return with_old_defaults(meta)

    def has(self, wave: int) -> bool:
        """Whether a wave's shard is complete."""
        return self._shard(wave).exists()

    def write_rows(self, wave: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """Store one wave, atomically."""
        lines = (json.dumps(row, ensure_ascii=False) for row in rows)
        write_atomically(self._shard(wave), "".join(line + "\n" for line in lines))

    def read_rows(
        self, decode: Callable[[Any], _T], *, damaged: Literal["raise", "skip"] = "raise"
    ) -> list[_T]:
        """Read all rows, in order.

        Args:
            decode: rebuilds an object from its row; raises ValueError, KeyError or TypeError where it cannot.
            damaged: ``"skip"`` leaves damaged lines out, with a warning that names them.

        Raises:
            DataError: if there are none, or a line is damaged; names shard and line.
        """
        rows = [row for _, shard in _numbered(self.folder) for row in _rows(shard, decode, damaged)]
        if not rows:
            raise DataError(f"{self.folder} holds no {self.HOLDS}")
        return rows

    def read_wave_rows(self, wave: int, decode: Callable[[Any], _T]) -> list[_T]:
        """Read the rows of one wave, in order.

        Raises:
            DataError: if a line is damaged; names shard and line.
        """
        return list(_rows(self._shard(wave), decode, "raise"))

    def _shard(self, wave: int) -> Path:
        return self.folder / f"wave-{wave:05d}.jsonl"


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    """Return the shards of a folder, in order."""
    matches = ((_SHARD.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted((int(match[1]), path) for match, path in matches if match)


def _rows(shard: Path, decode: Callable[[Any], _T], damaged: Literal["raise", "skip"]) -> Iterator[_T]:
    with shard.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield decode(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                message = f"{shard}, line {number} is damaged: {type(error).__name__}: {error}"
                if damaged == "raise":
                    raise DataError(message) from error
                warnings.warn(f"{message}; left out", stacklevel=4)


def _read_meta(folder: Path) -> dict[str, Any]:
    meta = read_json(folder / "meta.json")
    if not isinstance(meta, dict):
        raise DataError(f"{folder / 'meta.json'} must hold a mapping, got {type(meta).__name__}")
    return meta
