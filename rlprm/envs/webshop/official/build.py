"""Building what is read of official data: products, index and goals, in bounded memory."""

from __future__ import annotations

import itertools
import json
import logging
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from rlprm.envs.webshop.official.files import Files
from rlprm.envs.webshop.official.goals import GoalLists
from rlprm.envs.webshop.official.json_stream import elements, members
from rlprm.envs.webshop.official.records import human_instructions, is_sold, product_from, written_instruction
from rlprm.envs.webshop.search.analyzer import terms
from rlprm.envs.webshop.search.disk_index import IndexBuilder
from rlprm.envs.webshop.shop.product import Product, documented
from rlprm.errors import ConfigError, DataError

__all__ = ["META", "build"]

log = logging.getLogger(__name__)

META = "meta.json"
"""The file that is written last."""
_LOG_EVERY = 100_000


def build(files: Files, products: int | None, folder: Path) -> None:
    """Build a store; if another process was faster, its is kept.

    Raises:
        ConfigError: where it cannot be written.
        DataError: where a file is not what it should be.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise ConfigError(f"webshop cache: {folder.parent} cannot be written: {error.strerror}") from error
    try:
        log.info("building the WebShop index of %s in %s", files.products, folder)
        made.chmod(0o755)  # others may use it, too
        _fill(files, products, made)
        try:
            made.rename(folder)
        except OSError:
            if not (folder / META).is_file():
                raise
    except (OSError, sqlite3.Error) as error:  # such as a full disk
        raise ConfigError(
            f"webshop cache: the index cannot be written in {folder.parent}: {error}"
        ) from error
    except RecursionError as error:
        raise DataError(f"{files.attributes}: an entry is nested too deeply") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _fill(files: Files, products: int | None, folder: Path) -> None:
    index, goals = IndexBuilder(folder), GoalLists()
    human = {} if files.human is None else dict(members(files.human))
    entries = folder / "entries.tmp"
    _write_entries(files.attributes, entries)
    place = 0
    with _written(folder / "products.sqlite") as database:
        database.execute("CREATE TABLE product (place INTEGER PRIMARY KEY, record TEXT)")
        database.execute("CREATE TABLE term (term TEXT PRIMARY KEY, number INTEGER) WITHOUT ROWID")
        for product, entry in _sold(files.products, products, entries):
            written = written_instruction(product.asin, entry)
            spoken = human_instructions(product.asin, human.get(product.asin, ()))
            record = {name: getattr(product, name) for name in Product.__slots__}
            record |= {"instruction": written, "human": spoken}
            goals.add(place, product, synthetic=written is not None, human=len(spoken))
            database.execute("INSERT INTO product VALUES (?, ?)", (place, json.dumps(record)))
            index.add(terms(documented(product)))
            place += 1
            if place % _LOG_EVERY == 0:
                log.info("%d products", place)
        database.executemany("INSERT INTO term VALUES (?, ?)", index.vocabulary.items())
    entries.unlink()
    index.finish()
    goals.save(folder)
    (folder / META).write_text(json.dumps({"documents": place}))


def _sold(path: Path, products: int | None, entries: Path) -> Iterator[tuple[Product, dict[str, Any] | None]]:
    """Read the products that upstream takes, each identifier once, with what the attributes file says."""
    met: set[bytes] = set()
    with closing(sqlite3.connect(entries)) as database:
        for raw in itertools.islice(elements(path), products):
            if isinstance(raw, Mapping) and is_sold(raw) and (key := _key(raw["asin"])) not in met:
                met.add(key)
                row = database.execute("SELECT entry FROM entry WHERE asin = ?", (key,)).fetchone()
                entry = None if row is None else json.loads(row[0])
                yield product_from(raw, entry), entry


def _key(asin: str) -> bytes:
    return asin.encode(errors="surrogatepass")  # what is wrong with it is said where a product is made of it


def _write_entries(attributes: Path, path: Path) -> None:
    """Make the attributes file a table, since it is needed in another order than its own."""
    with _written(path) as database:
        database.execute("CREATE TABLE entry (asin BLOB PRIMARY KEY, entry TEXT) WITHOUT ROWID")
        rows = ((_key(asin), json.dumps(entry)) for asin, entry in members(attributes))
        database.executemany("INSERT OR REPLACE INTO entry VALUES (?, ?)", rows)


@contextmanager
def _written(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database that is written once: nothing to undo, nothing to keep in sync."""
    database = sqlite3.connect(path)
    try:
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        yield database
        database.commit()
    finally:
        database.close()
