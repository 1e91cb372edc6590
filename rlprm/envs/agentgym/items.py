"""AgentGym's data files: where they are, and which of their items belong to an environment.

An item is an object with an ``item_id`` such as ``"webshop_5238"``: the environment's name and the index of a
task. AgentEval's items are no more than that, AgentTraj's have ``conversations``, too.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlprm.envs._checks import user_path
from rlprm.errors import ArtifactError, DataError

__all__ = ["Items", "data_index", "index_in", "read_items"]

Items = list[tuple[str, Mapping[str, Any]]]
"""Where an item stands, for messages, and the item."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_FILES = ("{}_train.json", "{}_test.json")
"""Of an environment, in the data sets on the hub (the first in AgentTraj-L, the second in AgentEval)."""
_INDEX = re.compile(r"_([0-9]+)$")


def read_items(source: str, name: str) -> Items:
    """Read the items of an environment.

    Args:
        source: a file (a JSON list, or one item a line), a folder with a file ``<name>_train.json`` or
            ``<name>_test.json``, or the hub id of a data set with such a file, perhaps with a revision
            (``AgentGym/AgentTraj-L@main``).
        name: of the environment; item ids begin with it.

    Raises:
        ConfigError: for what cannot be a path.
        ArtifactError: if there is no such file, folder or data set.
        DataError: if a file is damaged or has no items of this environment; says which it has.
    """
    rows = [row for file in _files(source, name) for row in _rows(file)]
    chosen = [(where, item) for where, item in rows if item["item_id"].startswith(f"{name}_")]
    if not chosen:
        counts = Counter(item["item_id"].rpartition("_")[0] for _, item in rows)
        known = ", ".join(f"{other!r} ({count})" for other, count in counts.most_common(10))
        raise DataError(f"{source} holds no item of {name!r}; it has {known or 'none at all'}")
    return chosen


def data_index(where: str, item: Mapping[str, Any]) -> int:
    """Return the index of an item's task.

    Raises:
        DataError: if its id does not end with one.
    """
    index = index_in(item["item_id"])
    if index is None:
        raise DataError(
            f"{where}: item_id: got {item['item_id']!r}, allowed: a name, an underscore and a number"
        )
    return index


def index_in(identity: str) -> int | None:
    """Return the index of a task with which an id ends; None where it ends otherwise."""
    match = _INDEX.search(identity)
    return None if match is None or len(match[1]) > 18 else int(match[1])


def _files(source: str, name: str) -> list[Path]:
    path = user_path("agentgym data", source)
    if path.is_file():
        return [path]
    names = [pattern.format(name) for pattern in _FILES]
    if path.is_dir():
        paths = [path / file for file in names if (path / file).is_file()]
    elif _HUB_ID.fullmatch(source):
        paths = _from_hub(source, names)
    else:
        raise ArtifactError(f"no file or folder {source!r}, and it is no hub id either")
    if not paths:
        raise ArtifactError(f"{source} has none of the files {', '.join(names)}")
    return paths


def _from_hub(source: str, names: list[str]) -> list[Path]:
    from huggingface_hub import hf_hub_download  # only for the hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    repository, _, revision = source.partition("@")
    files = []
    for file in names:
        try:
            found = hf_hub_download(repository, file, repo_type="dataset", revision=revision or None)
            files.append(Path(found))
        except LocalEntryNotFoundError as error:  # no connection, and not in the cache
            reason = str(error).splitlines()[0]
        except EntryNotFoundError:
            reason = ""
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            break
    if not files and reason:
        raise ArtifactError(f"no file {source!r} here, and the hub's does not load: {reason}")
    return files


def _rows(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for where, item in _values(file):
        if not isinstance(item, dict) or not isinstance(item.get("item_id"), str):
            raise DataError(
                f"{where} is no item: expected an object with a text 'item_id', got {_shown(item)}"
            )
        yield where, item


def _values(file: Path) -> Iterator[tuple[str, Any]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    if text.lstrip().startswith("["):
        yield from ((f"{file}, item {i}", item) for i, item in enumerate(_loaded(str(file), text), start=1))
        return
    # Not splitlines: JSON strings may hold other line ends than \n.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"{file}, line {number}", _loaded(f"{file}, line {number}", line)


def _loaded(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON: {error}") from error


def _shown(value: Any) -> str:
    quote = repr(value)
    return quote if len(quote) <= 100 else quote[:100] + "..."
