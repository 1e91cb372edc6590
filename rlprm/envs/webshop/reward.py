"""The reward of a purchase, as pure functions.

With ``A`` attributes and ``O`` options asked for, and a price cap::

    R = type · (attributes met + options met + [price ≤ cap]) / (A + O + 1)

(WebShop, Yao et al. 2022, section 3 and the code of princeton-nlp/WebShop.)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from rapidfuzz import fuzz
from rapidfuzz.utils import default_process

from rlprm.envs.webshop.colors import first_color, normalized
from rlprm.envs.webshop.shop.product import Product

__all__ = [
    "RULES", "Parts", "Request", "attributes_met", "option_met", "purchase_reward", "similarity",
    "title_score", "type_factor",
]  # fmt: skip

RULES = ("fixed", "strict")
"""``strict`` compares options with a name as upstream does, see :func:`option_met`."""

_ALIKE = 85  # more than this is a match
_LATIN_1 = dict.fromkeys(range(128, 256))

Nouns = Callable[[str], Sequence[str]]
"""Finds the nouns of a title, lower case, repetitions included."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for."""

    attributes: tuple[str, ...]
    options: tuple[tuple[str, str], ...]
    """Names and values; the name is empty where only a value is asked for (human instructions)."""
    price_cap: float
    product: Product
    """The product it was made from: the type is judged by its title, query and categories."""


@dataclass(frozen=True, slots=True)
class Parts:
    """A reward, and what it is made of."""

    reward: float
    type_factor: float
    attributes_met: int
    options_met: int
    price_met: bool


def purchase_reward(
    product: Product, chosen: Collection[str], request: Request, *, rule: str, nouns: Nouns
) -> Parts:
    """Judge a purchase.

    Args:
        product: What was bought.
        chosen: The option values that were chosen.
        request: What was asked for.
        rule: One of :data:`RULES`.
        nouns: Finds the nouns of a title.
    """
    kind = type_factor(product, request.product, nouns)
    attributes = attributes_met(product, request.attributes)
    options = sum(option_met(name, value, chosen, rule=rule) for name, value in request.options)
    price = product.price <= request.price_cap
    asked = len(request.attributes) + len(request.options) + 1
    return Parts(kind * ((attributes + options + price) / asked), kind, attributes, options, price)


def attributes_met(product: Product, wanted: Iterable[str]) -> int:
    """Count the attributes that are alike to one of the product's, or stand in its text."""
    return sum(_has_attribute(product, attribute) for attribute in wanted)


def _has_attribute(product: Product, wanted: str) -> bool:
    return (
        any(similarity(attribute, wanted) > _ALIKE for attribute in product.attributes)
        or wanted in product.title.lower()
        or wanted in " ".join(product.bullets).lower()
        or wanted in product.description.lower()
    )


def option_met(name: str, value: str, chosen: Iterable[str], *, rule: str) -> bool:
    """Return whether one of the chosen values is alike to the one that is wanted.

    Both are first replaced by the colour they contain. By the rule ``strict`` an option with a
    name is compared as upstream does, by oversight: as the text of the pair of name and value,
    replaced by a colour only where one of the two is exactly that. What was chosen, though, is
    replaced by any colour it contains, and a few goals cannot be met ("bluegreen": "blue" and
    "color bluegreen" are not alike).

    Args:
        name: Of the option; empty where only a value is asked for.
        value: What is wanted.
        chosen: Values.
        rule: ``"fixed"`` or ``"strict"``.
    """
    if rule == "strict" and name:
        pair = (name, value)
        wanted = first_color(pair) or str(pair)
        return any(similarity(normalized(other), wanted) > _ALIKE for other in chosen)
    wanted = normalized(value)
    return any((one := normalized(other)) == wanted or similarity(one, wanted) > _ALIKE for other in chosen)


def type_factor(product: Product, wanted: Product, nouns: Nouns) -> float:
    """Return how near the type of a product is to the wanted one: 1, 0.5, 0.1 or 0.

    It is 0 where the titles share no noun, 0.1 where they share less than a tenth of the wanted
    one's, else 1 with the same query, two steps of the category in common, or more than a fifth
    of the nouns; and 0.5 without any of these.
    """
    score = title_score(product.title, wanted.title, nouns)
    if score == 0.0:
        return 0.0
    if score < 0.1:
        return 0.1
    alike = (
        product.query == wanted.query
        or len(_steps(product.product_category) & _steps(wanted.product_category)) >= 2
        or score > 0.2
    )
    return 1.0 if alike else 0.5


def title_score(title: str, wanted: str, nouns: Nouns) -> float:
    """Return how many different nouns two titles share, by how many the wanted one has (0.2 if none)."""
    of_wanted = nouns(wanted)
    return len(set(nouns(title)) & set(of_wanted)) / len(of_wanted) if of_wanted else 0.2


@functools.lru_cache(maxsize=50_000)
def similarity(one: str, other: str) -> int:
    """Return thefuzz's ``token_set_ratio``, 0 to 100.

    That is: without the letters of Latin-1 beyond ASCII, lower case, everything else than letters
    and digits as white space, and the ratio rounded.
    """
    return round(fuzz.token_set_ratio(_processed(one), _processed(other)))


def _processed(text: str) -> str:
    return default_process(text.translate(_LATIN_1))


@functools.lru_cache(maxsize=10_000)
def _steps(product_category: str) -> frozenset[str]:
    return frozenset(step.strip() for step in product_category.split("›"))
