"""Rows of a data set: JSON lines in a file or a folder, or a data set on the hub."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlprm.envs._checks import user_path
from rlprm.errors import ConfigError, DataError
from rlprm.types import Split

__all__ = ["Rows", "read_rows"]

Rows = list[tuple[str, Any]]
"""Where a row comes from, and its content."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
# What data sets call their parts; of several, the first one counts. MMLU's "dev" holds examples for prompts.
_PARTS = {
    Split.TRAIN: ("train", "auxiliary_train"),
    Split.DEV: ("validation", "val", "dev"),
    Split.TEST: ("test",),
}


def read_rows(data: str, subset: str | None) -> dict[Split, Rows]:
    """Read every part of a data set; what it does not have is missing.

    Args:
        data: a ``.jsonl`` file (all of it is ``TRAIN``), a folder of them named by part (``train.jsonl``,
            ``test.jsonl``, and ``validation.jsonl`` or ``dev.jsonl`` if there is one), or a hub id,
            perhaps with a revision (``openai/gsm8k@main``).
        subset: the hub's name of a configuration, if it has several.

    Raises:
        ConfigError: if there is no such file, folder or data set.
        DataError: for a line that is not JSON.
    """
    path = user_path("math data", data)
    if path.is_file():
        return {Split.TRAIN: list(_lines(path))}
    if path.is_dir():
        parts = {file.stem: file for file in sorted(path.glob("*.jsonl"))}
        by_split = {split: list(_lines(parts[name])) for split, name in _known(parts).items()}
    else:
        hub = _from_hub(data, subset)
        by_split = {split: _numbered(f"{data} {name}", hub[name]) for split, name in _known(hub).items()}
    if not by_split:
        raise ConfigError(
            f"math data: {data} has none of the parts "
            + ", ".join(name for names in _PARTS.values() for name in names)
        )
    return by_split


def _known(parts: Mapping[str, Any]) -> dict[Split, str]:
    named = {split: [name for name in names if name in parts] for split, names in _PARTS.items()}
    return {split: names[0] for split, names in named.items() if names}


def _lines(file: Path) -> Iterator[tuple[str, Any]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    # Not splitlines: JSON strings may hold other line ends than \n.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield f"{file}:{number}", json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{file}:{number} is not JSON: {error}") from error


def _numbered(name: str, rows: Any) -> Rows:
    return [(f"{name} row {number}", row) for number, row in enumerate(rows)]


def _from_hub(data: str, subset: str | None) -> Mapping[str, Any]:
    if not _HUB_ID.fullmatch(data):
        raise ConfigError(f"math data: got {data!r}, allowed: a .jsonl file, a folder of them, or a hub id")
    import datasets  # half a second, and only for the hub

    repository, _, revision = data.partition("@")
    try:
        try:
            parts = datasets.load_dataset(repository, subset, revision=revision or None)
        except ConnectionError:  # the library finds offline what it has prepared, not what was downloaded
            folder = _downloaded(repository, revision or None)
            if folder is None:
                raise
            parts = datasets.load_dataset(folder, subset)
    except Exception as error:  # of many kinds: network, hub, unknown names
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"math data: {data!r} is no file or folder here, and the hub's does not load: {reason}"
        ) from error
    return dict(parts)


def _downloaded(repository: str, revision: str | None) -> str | None:
    """Return the folder of a data set in the hub's cache; None if the cache does not have it."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        found = snapshot_download(repository, repo_type="dataset", revision=revision, local_files_only=True)
    except LocalEntryNotFoundError:
        return None
    return str(found)
