"""The generated catalogue: the shop that comes with the package.

Of each kind of product there are four families of a brand; the three products of a family differ in
price, in the values of their options, and in one or two attributes, under nearly the same title. Two
of a product's four attributes stand in its title, one in its first bullet, and one in its second, which
no search reads; bullets are shown on the features page.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from rlprm.envs.webshop.shop.product import Option, Product, Review
from rlprm.envs.webshop.shop.product_kinds import BRANDS, CATEGORIES, OPTION_VALUES, Category, Kind

__all__ = ["ASIN_PARTS", "Draw", "generated_by_asin", "generated_products"]

T = TypeVar("T")

_SEED = "webshop catalogue 1"
_FAMILIES = 4
_MOST_VALUES = 4
"""Of an option; the least is one less."""

_SYLLABLES = [consonant + vowel for consonant in "DKLMPRTV" for vowel in "AEIO"]
ASIN_PARTS: tuple[tuple[str, ...], tuple[str, ...]] = (
    tuple(f"B0{syllable}RA" for syllable in _SYLLABLES),
    tuple(f"{syllable}NU" for syllable in _SYLLABLES),
)
"""Beginnings and endings of the identifiers: 64 parts name a thousand products."""

_USES = ("every day", "the whole family", "long weekends", "small homes", "cold mornings", "busy weeks")
_EXTRAS = (
    "ships in a plain box",
    "comes with a care card",
    "two year guarantee",
    "designed by a small studio",
    "made to be repaired",
)
_CLOSINGS = ("a good match for our {}", "sold beside our {}", "from the makers of {}")
_REVIEWS = (
    Review("just right", "5.0", "does what it says and looks good."),
    Review("good value", "4.0", "fine for the price."),
    Review("as expected", "4.0", "arrived on time, nothing to complain about."),
    Review("not for me", "2.0", "it is well made but i had something else in mind."),
    Review("second one", "5.0", "bought another for a friend."),
)


class Draw:
    """Draws that stay the same: of Python's generator, only ``random()`` is promised not to change."""

    def __init__(self, seed: str) -> None:
        """Start from a seed."""
        self._random = random.Random(seed).random

    def below(self, bound: int) -> int:
        """Return a number from 0 to ``bound - 1``."""
        return int(self._random() * bound)

    def one(self, things: Sequence[T]) -> T:
        """Return one of several things."""
        return things[self.below(len(things))]

    def some(self, things: Sequence[T], count: int) -> list[T]:
        """Return so many different things, in a drawn order."""
        keyed = sorted((self._random(), place) for place in range(len(things)))
        return [things[place] for _, place in keyed[:count]]


@functools.cache
def generated_products() -> tuple[Product, ...]:
    """Return the products of the generated catalogue, always the same."""
    draw = Draw(_SEED)
    made = [
        product
        for category in CATEGORIES
        for kind in category.kinds
        for brand in draw.some(BRANDS, _FAMILIES)
        for product in _family(draw, category, kind, brand)
    ]
    asins = [first + second for first in ASIN_PARTS[0] for second in ASIN_PARTS[1]]
    order = draw.some(made, len(made))
    named = zip(draw.some(asins, len(order)), order, strict=True)
    return tuple(replace(product, asin=asin) for asin, product in named)


@functools.cache
def generated_by_asin() -> dict[str, Product]:
    """Return the products of the generated catalogue by identifier."""
    return {product.asin: product for product in generated_products()}


def _family(draw: Draw, category: Category, kind: Kind, brand: str) -> list[Product]:
    shown = draw.some(category.attributes, 2)
    others = [attribute for attribute in category.attributes if attribute not in shown]
    hidden = draw.some(others, 4)
    price = round(kind.price * (1 + draw.below(100) / 100))
    dearer, dearest = price + 10 + draw.below(15), price + 35 + draw.below(20)
    return [
        _product(draw, category, kind, brand, shown, hidden[:2], price),
        _product(draw, category, kind, brand, [shown[0], hidden[3]], hidden[:2], dearer),
        _product(draw, category, kind, brand, shown, hidden[1:3], dearest),
    ]


def _product(
    draw: Draw,
    category: Category,
    kind: Kind,
    brand: str,
    shown: Sequence[str],
    hidden: Sequence[str],
    dollars: int,
) -> Product:
    price = dollars + 0.99
    others = [other.name for other in category.kinds if other is not kind]
    return Product(
        asin="",
        title=f"{brand} {' '.join(shown)} {kind.name}",
        description=f"{kind.name} by {brand}, {draw.one(_CLOSINGS).format(draw.one(others))}.",
        bullets=(
            f"{hidden[0]}, for {draw.one(_USES)}",
            f"{hidden[1]}, for {draw.one(_USES)}",
            draw.one(_EXTRAS),
        ),
        price=price,
        price_tag=f"${price}",
        options=tuple(
            Option(key.split()[-1], _offered(draw, key, brand + kind.name)) for key in kind.options
        ),
        attributes=(*shown, *hidden),
        category=category.name,
        query=kind.name,
        product_category=f"{category.path} › {kind.name}",
        rating=f"{3 + draw.below(20) / 10:.1f}",
        reviews=tuple(draw.some(_REVIEWS, draw.below(3))),
    )


def _offered(draw: Draw, key: str, family: str) -> tuple[str, ...]:
    """Draw the values of an option: most of those of the family."""
    values = OPTION_VALUES[key]
    common = Draw(f"{_SEED} {key} {family}").some(values, min(len(values), _MOST_VALUES))
    chosen = draw.some(common, min(len(common), _MOST_VALUES) - draw.below(2))
    return tuple(value for value in values if value in chosen)
