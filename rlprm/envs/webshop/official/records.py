"""What a record of WebShop's own files becomes: a product, its instructions."""

from __future__ import annotations

import math
import random
import re
import reprlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rlprm.envs._checks import encodable
from rlprm.envs.webshop.shop.product import Option, Product
from rlprm.errors import DataError

__all__ = ["human_instructions", "is_sold", "product_from", "written_instruction"]

Instruction = tuple[str, tuple[str, ...]]
"""A generated instruction, with its attributes."""
HumanInstruction = tuple[str, tuple[str, ...], tuple[str, ...]]
"""A human instruction, with its attributes and options."""

_LONGEST_ASIN = 10
_NO_PRICE = 100.0
_NO_ATTRIBUTES = ("DUMMY_ATTR",)


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
    with _naming("a WebShop product", raw.get("asin")):
        prices, tag = _prices(raw.get("pricing"))
        price = prices[0]
        if len(prices) > 1:
            price += (prices[1] - prices[0]) * random.Random(raw["asin"]).random()
        bullets = raw["small_description"]
        attributes = None if entry is None else entry.get("attributes")
        return Product(
            asin=encodable(raw["asin"]),
            title=_text(raw["name"]),
            description=_text(raw["full_description"]),
            bullets=tuple(map(_text, bullets if isinstance(bullets, list) else [bullets])),
            price=price,
            price_tag=tag,
            options=tuple(_options(raw.get("customization_options"))),
            attributes=_NO_ATTRIBUTES if attributes is None else _texts(attributes),
            category=_text(raw["category"]),
            query=_text(raw["query"]).lower().strip(),
            product_category=_text(raw["product_category"]),
        )


def written_instruction(asin: str, entry: Mapping[str, Any] | None) -> Instruction | None:
    """Return the generated instruction that the attributes file has of a product; None where it has none.

    Raises:
        DataError: where a field is not what it should be.
    """
    if entry is None:
        return None
    with _naming("an instruction for a WebShop product", asin):
        text, attributes = entry.get("instruction"), entry.get("instruction_attributes")
        given = _text(text), () if attributes is None else _texts(attributes)
        return given if all(given) else None


def human_instructions(asin: str, entries: Any) -> list[HumanInstruction]:
    """Return the human instructions of a product.

    Those without attributes are left out, as upstream does.

    Raises:
        DataError: where a field is missing or is not what it should be.
    """
    with _naming("human instructions for a WebShop product", asin):
        return [
            (
                _text(given["instruction"]).strip("."),
                _texts(given["instruction_attributes"]),
                _texts(given["instruction_options"]),
            )
            for given in entries
            if given["instruction_attributes"]
        ]


@contextmanager
def _naming(what: str, asin: Any) -> Iterator[None]:
    """Say of what is wrong whose it is."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"not {what}: {asin!r}: {error!r}") from error


def _text(value: Any) -> str:
    """Return text; a missing one (null) is empty."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(f"got {reprlib.repr(value)}, allowed: a text")
    return encodable(value)


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError(f"got {reprlib.repr(values)}, allowed: a list of texts")
    return tuple(map(encodable, values))


def _prices(pricing: Any) -> tuple[list[float], str]:
    """Return the one or two prices of ``"$9.99"`` or ``"$9.99 $19.99"``, 100 dollars if none, and a tag."""
    numbers = [re.sub(r"[^\d.]", "", part) for part in _text(pricing or None).split("$")[1:]]
    prices = [float(number) for number in numbers if number.strip(".")][:2] or [_NO_PRICE]
    if not all(map(math.isfinite, prices)):
        raise ValueError(f"pricing is {reprlib.repr(pricing)}")
    return prices, " to ".join(f"${price}" for price in prices)


def _options(given: Any) -> Iterator[Option]:
    options: dict[str, tuple[str, ...]] = {}
    for name, contents in (given or {}).items():
        if contents is not None:
            values = (content["value"].strip().replace("/", " | ").lower() for content in contents)
            options[encodable(name.lower())] = tuple(map(encodable, values))
    return (Option(name, values) for name, values in options.items())
