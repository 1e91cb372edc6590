"""The files of WebShop's own data, and a fingerprint of them.

The product file is ``items_shuffle.json`` (or a part of it, ``items_shuffle_1000.json``), attributes and
generated instructions are in ``items_ins_v2.json`` (``items_ins_v2_1000.json``), human instructions in
``items_human_ins.json``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from rlprm.envs._checks import user_path
from rlprm.errors import ConfigError

__all__ = ["Files", "find_files", "fingerprint"]

_PRODUCTS = "items_shuffle*.json"
_SAMPLE = 1 << 20  # bytes of a file's beginning and end that go into its fingerprint


@dataclass(frozen=True)
class Files:
    """Where the data are."""

    products: Path
    attributes: Path
    human: Path | None
    """None where there are no human instructions."""

    @property
    def all(self) -> tuple[Path, ...]:
        """The files there are."""
        return tuple(path for path in (self.products, self.attributes, self.human) if path is not None)


def find_files(data: str) -> Files:
    """Find the files of a folder, or those beside a product file.

    Raises:
        ConfigError: where they are missing, or there are several product files.
    """
    path = user_path("webshop data", data)
    inside = [path] if path.is_file() else sorted(path.glob("*.json"))
    candidates = [file for file in inside if file.match(_PRODUCTS) and file.is_file()]
    if len(candidates) != 1:
        names = ", ".join(file.name for file in candidates) or "none"
        raise ConfigError(
            f"webshop data: got {data!r} with {names}, allowed: a folder with one {_PRODUCTS}, or that file"
        )
    (products,) = candidates
    folder, ending = products.parent, products.stem.removeprefix("items_shuffle")
    attributes = folder / f"items_ins_v2{ending}.json"
    if not attributes.is_file():
        raise ConfigError(f"webshop data: there is no {attributes}, with the attributes of {products.name}")
    human = folder / "items_human_ins.json"
    return Files(products, attributes, human if human.is_file() else None)


def fingerprint(files: Files) -> str:
    """Return a hash of the sizes, beginnings and ends of the files.

    Raises:
        ConfigError: where a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in files.all:
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                head = file.read(_SAMPLE)
                file.seek(max(0, size - _SAMPLE))
                digest.update(f"{size} ".encode() + head + file.read())
        except OSError as error:
            raise ConfigError(f"webshop data: {path} cannot be read: {error.strerror}") from error
    return digest.hexdigest()
