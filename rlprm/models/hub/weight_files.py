"""The files of a model's weights: which there are, which are missing, and what they hash to.

Weights are large, and each stage needs their hash. The hash of a file is therefore kept in a cache on disk,
by path, size and time of change. Processes of one machine wait for the one that hashes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from filelock import FileLock

from rlprm.errors import DataError
from rlprm.runtime.files import read_json, write_json

__all__ = ["missing_shards", "weight_files", "weights_hash"]

_CACHED_FROM = 1 << 24
"""Bytes of a file whose hash is worth a place in the cache."""
_KEPT = 1000
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


def weight_files(folder: str | Path) -> list[Path]:
    """Return the files of a folder's weights, in order; none if there are none."""
    folder = Path(folder)
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


def missing_shards(folder: str | Path) -> list[str]:
    """Return the names of weights that a folder should have and lacks, as its index says."""
    folder = Path(folder)
    found = weight_files(folder)
    if any(file.name in ("model.safetensors", "pytorch_model.bin") for file in found):
        return []
    for index in _INDEXES:
        # An index of the other kind may be left over; its files were not wanted.
        of_kind = not found or index.removesuffix(".index.json").endswith(found[0].suffix)
        if of_kind and (folder / index).is_file():
            names = sorted(set(read_json(folder / index)["weight_map"].values()))
            return [name for name in names if not (folder / name).is_file()]
    return [] if found else ["*.safetensors or pytorch_model*.bin"]


def weights_hash(files: Sequence[Path]) -> str:
    """Return a hash of the contents of files, 12 hexadecimal digits."""
    digest = hashlib.sha256()
    for file in files:
        path, found = file.resolve(), file.stat()
        digest.update(bytes.fromhex(_file_hash(str(path), found.st_size, found.st_mtime_ns)))
    return digest.hexdigest()[:12]


@lru_cache
def _file_hash(path: str, size: int, changed: int) -> str:
    if size < _CACHED_FROM:
        return _hash(path)
    cache = _cache_folder() / "weight_hashes.json"
    key = f"{path} {size} {changed}"
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        # One lock for each file: other weights need not wait.
        with FileLock(cache.parent / f"{hashlib.sha256(path.encode()).hexdigest()[:16]}.lock"):
            if (known := _known(cache).get(key)) is not None:
                return known
            found = _hash(path)
            with FileLock(f"{cache}.lock"):
                hashes = {**_known(cache), key: found}
                write_json(cache, dict(list(hashes.items())[-_KEPT:]))
            return found
    except OSError:  # no place to write to
        return _hash(path)


def _known(cache: Path) -> dict[str, str]:
    try:
        found = read_json(cache)
    except (OSError, DataError):
        return {}
    return found if isinstance(found, dict) else {}


def _hash(path: str) -> str:
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "rlprm"
