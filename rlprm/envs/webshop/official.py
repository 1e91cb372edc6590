"""WebShop's own data: which files there are, and what a line of them becomes.

The product file is ``items_shuffle.json`` (or a part of it, ``items_shuffle_1000.json``), attributes and
generated instructions are in ``items_ins_v2.json`` (``items_ins_v2_1000.json``), human instructions in
``items_human_ins.json``.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlprm.envs.webshop.product import Option, Product
from rlprm.errors import ConfigError, DataError

__all__ = ["Files", "find_files", "fingerprint", "instructions_of", "is_sold", "product_from"]

_LONGEST_ASIN = 10
_NO_PRICE = 100.0
_NO_ATTRIBUTES = ("DUMMY_ATTR",)
_SAMPLE = 1 << 20  # bytes of a file's beginning and end that tell it from others


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
    path = Path(data)
    found = [path] if path.is_file() else sorted(path.glob("items_shuffle*.json"))
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise ConfigError(
            f"webshop data: got {data!r} with {names}, allowed: a folder with one items_shuffle*.json, or it"
        )
    (products,) = found
    folder, ending = products.parent, products.stem.removeprefix("items_shuffle")
    attributes = folder / f"items_ins_v2{ending}.json"
    if not attributes.is_file():
        raise ConfigError(f"webshop data: there is no {attributes}, with the attributes of {products.name}")
    human = folder / "items_human_ins.json"
    return Files(products, attributes, human if human.is_file() else None)


def fingerprint(files: Files) -> str:
    """Return a hash that tells data from other data: of the sizes, beginnings and ends of the files."""
    digest = hashlib.sha256()
    for path in files.all:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_SAMPLE)
            file.seek(max(0, size - _SAMPLE))
            digest.update(f"{size} ".encode() + head + file.read())
    return digest.hexdigest()


def is_sold(raw: Mapping[str, Any]) -> bool:
    """Return whether upstream takes a product: its identifier has at most ten characters, not ``nan``."""
    asin = raw.get("asin")
    return isinstance(asin, str) and asin != "nan" and len(asin) <= _LONGEST_ASIN


def product_from(raw: Mapping[str, Any], entry: Mapping[str, Any] | None) -> Product:
    """Make a product of an element of the product file, as upstream does.

    Upstream draws the price of a product with a price range at every start; here it is drawn once, from
    the product's identifier.

    Args:
        raw: The element.
        entry: What the attributes file says about it, None for nothing.

    Raises:
        DataError: where a field is missing or is not what it should be.
    """
    try:
        prices, tag = _prices(raw.get("pricing"))
        price = prices[0]
        if len(prices) > 1:
            price += (prices[1] - prices[0]) * random.Random(raw["asin"]).random()
        bullets = raw["small_description"]
        attributes = None if entry is None else entry.get("attributes")
        return Product(
            asin=raw["asin"],
            title=_text(raw["name"]),
            description=_text(raw["full_description"]),
            bullets=tuple(_text(line) for line in (bullets if isinstance(bullets, list) else [bullets])),
            price=price,
            price_tag=tag,
            options=tuple(_options(raw.get("customization_options"))),
            attributes=_NO_ATTRIBUTES if attributes is None else tuple(attributes),
            category=_text(raw["category"]),
            query=_text(raw["query"]).lower().strip(),
            product_category=_text(raw["product_category"]),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"not a WebShop product: {raw.get('asin')!r}: {error!r}") from error


def instructions_of(entry: Any) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """Return the human instructions of a product, each with its attributes and options.

    Those without attributes are left out, as upstream does.

    Raises:
        DataError: where a field is missing or is not what it should be.
    """
    try:
        return [
            (
                str(given["instruction"]).strip("."),
                tuple(map(str, given["instruction_attributes"])),
                tuple(map(str, given["instruction_options"])),
            )
            for given in entry
            if given["instruction_attributes"]
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"not human instructions of a WebShop product: {error!r}") from error


def _text(value: Any) -> str:
    """Return text; a missing one (null) is empty."""
    return "" if value is None else str(value)


def _prices(pricing: Any) -> tuple[list[float], str]:
    """Return the one or two prices of ``"$9.99"`` or ``"$9.99 $19.99"``, 100 dollars if none, and a tag."""
    numbers = [re.sub(r"[^\d.]", "", part) for part in str(pricing or "").split("$")[1:]]
    prices = [float(number) for number in numbers if number.strip(".")][:2] or [_NO_PRICE]
    return prices, " to ".join(f"${price}" for price in prices)


def _options(given: Any) -> Iterator[Option]:
    options: dict[str, tuple[str, ...]] = {}
    for name, contents in (given or {}).items():
        if contents is not None:
            values = (content["value"].strip().replace("/", " | ").lower() for content in contents)
            options[name.lower()] = tuple(values)
    return (Option(name, values) for name, values in options.items())
