"""Official data on disk: products, index and goals, built once and then only read.

A folder holds ``products.sqlite`` (products and terms by number), the arrays of the index, the goals in
upstream's order, and ``meta.json``. It is built beside its final place and moved there when it is complete.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlprm.envs._checks import user_path
from rlprm.envs.webshop.goal import Goal
from rlprm.envs.webshop.official.build import META, build
from rlprm.envs.webshop.official.files import Files, find_files, fingerprint
from rlprm.envs.webshop.official.goals import GOAL_KINDS, official_goal
from rlprm.envs.webshop.search.disk_index import open_index
from rlprm.envs.webshop.search.index import K1, B
from rlprm.envs.webshop.shop.product import Option, Product, Review
from rlprm.envs.webshop.shop.shop import Shop

__all__ = ["Store", "open_store"]

_FORMAT = 4
_PRODUCTS_KEPT = 4096


@dataclass(frozen=True)
class Store:
    """Official data, ready to use."""

    folder: Path
    mark: str
    """Tells these data from others."""
    documents: int

    @functools.cached_property
    def shop(self) -> Shop:
        """The products."""
        index = open_index(self.folder, self._term_id, self.documents)
        return Shop(index, functools.lru_cache(maxsize=_PRODUCTS_KEPT)(self._product))

    @functools.cached_property
    def _goals(self) -> dict[str, NDArray[np.int32]]:
        return {kind: np.load(self.folder / f"{kind}.npy", mmap_mode="r") for kind in GOAL_KINDS}

    def goals(self, kind: str) -> int:
        """Return how many goals of a kind there are."""
        return len(self._goals[kind])

    def goal(self, kind: str, number: int) -> Goal:
        """Return a goal by its number in upstream's order."""
        place, entry, cap = (int(value) for value in self._goals[kind][number])
        record = self._record(place)
        return official_goal(kind, _product_of(record), record, entry, cap)

    def _product(self, place: int) -> Product:
        return _product_of(self._record(place))

    def _record(self, place: int) -> dict[str, Any]:
        rows = self._connection().execute("SELECT record FROM product WHERE place = ?", (place,))
        record: dict[str, Any] = json.loads(next(rows)[0])
        return record

    def _term_id(self, term: str) -> int | None:
        row = self._connection().execute("SELECT number FROM term WHERE term = ?", (term,)).fetchone()
        return None if row is None else row[0]

    def _connection(self) -> sqlite3.Connection:
        return _connected(self.folder, os.getpid())  # a connection does not survive a fork


def open_store(data: str, products: int | None = None, cache: str | None = None) -> Store:
    """Open official data, after building what is read of them if that is not there yet.

    Args:
        data: Folder of the files, or the product file.
        products: So many elements of the product file only.
        cache: Folder for what is built; beside the data, or in the user's cache folder where that
            cannot be written, if None.

    Raises:
        ConfigError: where files are missing.
        DataError: where a file is not what it should be.
    """
    files = find_files(data)
    stamps = tuple((str(path.resolve()), path.stat().st_mtime_ns) for path in files.all)
    return _opened(files, stamps, products, cache)


@functools.lru_cache(maxsize=8)
def _opened(
    files: Files, stamps: tuple[tuple[str, int], ...], products: int | None, cache: str | None
) -> Store:
    mark = hashlib.sha256(f"{fingerprint(files)} {products}".encode()).hexdigest()[:16]
    key = hashlib.sha256(json.dumps([mark, stamps, _FORMAT, K1, B]).encode()).hexdigest()[:16]
    folder = _cache_folder(files, cache) / key
    if not (folder / META).is_file():
        build(files, products, folder)
    meta = json.loads((folder / META).read_text())
    return Store(folder, mark, meta["documents"])


def _cache_folder(files: Files, cache: str | None) -> Path:
    if cache is not None:
        return user_path("webshop cache", cache)
    beside = files.products.resolve().parent
    if os.access(beside, os.W_OK):
        return beside / ".rlprm-webshop"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rlprm" / "webshop"


@functools.lru_cache(maxsize=8)
def _connected(folder: Path, process: int) -> sqlite3.Connection:
    uri = (folder / "products.sqlite").resolve().as_uri() + "?mode=ro&immutable=1"
    return sqlite3.connect(uri, uri=True, check_same_thread=False)


def _product_of(record: Mapping[str, Any]) -> Product:
    fields = {name: record[name] for name in Product.__slots__}
    for name in ("bullets", "attributes"):
        fields[name] = tuple(fields[name])
    fields["options"] = tuple(Option(name, tuple(values)) for name, values in fields["options"])
    fields["reviews"] = tuple(Review(*review) for review in fields["reviews"])
    return Product(**fields)
