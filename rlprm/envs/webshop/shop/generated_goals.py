"""Goals over the generated catalogue: what is asked for, in which words, and the splits."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rlprm.envs.webshop.goal import Goal, price_caps, price_words
from rlprm.envs.webshop.reward import Request
from rlprm.envs.webshop.shop.generated_products import Draw, generated_by_asin, generated_products
from rlprm.envs.webshop.shop.product import Product
from rlprm.envs.webshop.shop.product_kinds import CATEGORIES
from rlprm.types import Split

__all__ = [
    "ASKED_ATTRIBUTES",
    "CATEGORY_NAMES",
    "WORDINGS",
    "Wish",
    "instruction",
    "more_hidden_wishes_of",
    "wishes",
    "wishes_in",
    "wishes_of",
    "worded",
]

CATEGORY_NAMES: tuple[str, ...] = tuple(category.name for category in CATEGORIES)
"""Of the generated shop."""

ASKED_ATTRIBUTES = ("any", "searchable", "hidden")
"""Which attributes goals ask for. A search finds three of a product's four attributes, and only the features
page shows the last one. All ``hidden`` goals, no ``searchable`` goal and one of seven ``any`` goals ask for
that one."""

WORDINGS = 5
"""How many ways there are to ask for the same."""

_DEV_AND_TEST = {0: Split.TEST, 1: Split.DEV}  # of ten parts one each; the rest is for training
_SPLIT_SEED = "webshop splits 1"


@dataclass(frozen=True, slots=True)
class Wish:
    """Two attributes and a value of each option of a product, still without words and price cap."""

    product: Product
    attributes: tuple[str, str]
    options: tuple[tuple[str, str], ...]
    number: int
    """Among the wishes of the product."""

    @property
    def hidden(self) -> bool:
        """Whether no search finds one of the attributes."""
        return self.product.attributes[-1] in self.attributes


@functools.cache
def wishes(attributes: str = "any") -> dict[Split, tuple[Wish, ...]]:
    """Return the wishes of each split for some of :data:`ASKED_ATTRIBUTES`, in the order of its tasks.

    A split is chosen by what is asked for (the kind, the attributes and the options), so no request
    is in two splits, whichever of several products it was made from. Training tasks that ask for the
    same thing stand together: parts of the split, given to different stages, have no request in common.
    """
    by_split: dict[Split, list[Wish]] = {split: [] for split in Split}
    for product in generated_products():
        for wish in _asking_for(attributes, product):
            by_split[_split_of(wish)].append(wish)
    draw = Draw(_SPLIT_SEED)
    drawn = {split: draw.some(members, len(members)) for split, members in by_split.items()}
    first_of = {_asked(wish): place for place, wish in reversed(list(enumerate(drawn[Split.TRAIN])))}
    drawn[Split.TRAIN].sort(key=lambda wish: first_of[_asked(wish)])
    return {split: tuple(members) for split, members in drawn.items()}


def _asking_for(attributes: str, product: Product) -> Iterator[Wish]:
    if attributes == "any":
        yield from wishes_of(product)
    elif attributes == "searchable":
        yield from (wish for wish in wishes_of(product) if not wish.hidden)
    else:
        yield from (wish for wish in wishes_of(product) if wish.hidden)
        yield from more_hidden_wishes_of(product)


@functools.lru_cache(maxsize=32)
def wishes_in(split: Split, categories: tuple[str, ...], attributes: str = "any") -> tuple[Wish, ...]:
    """Return the wishes of a split for products of some categories, in the order of its tasks."""
    return tuple(wish for wish in wishes(attributes)[split] if wish.product.category in categories)


def wishes_of(product: Product) -> Iterator[Wish]:
    """List pairs of attributes of which the title shows at least one, with the combinations of options.

    The last attribute is one that no search finds; it is asked for with every other combination only,
    since ten rounds are few to look for it.
    """
    first, second, third, fourth = product.attributes
    every = _combinations(product)
    asked = itertools.chain(
        itertools.product(((first, second), (first, third), (second, third)), every),
        itertools.product(((first, fourth),), every[::2]),
    )
    for number, (pair, options) in enumerate(asked):
        yield Wish(product, pair, options, number)


def more_hidden_wishes_of(product: Product) -> Iterator[Wish]:
    """List the wishes for the last attribute and one of the title that :func:`wishes_of` leaves out."""
    first, second, _, fourth = product.attributes
    every = _combinations(product)
    asked = itertools.chain(
        itertools.product(((first, fourth),), every[1::2]), itertools.product(((second, fourth),), every)
    )
    for number, (pair, options) in enumerate(asked, start=_usual_wishes(product)):
        yield Wish(product, pair, options, number)


def _usual_wishes(product: Product) -> int:
    """Return how many wishes :func:`wishes_of` lists."""
    count = len(_combinations(product))
    return 3 * count + (count + 1) // 2


@functools.lru_cache(maxsize=1024)
def _combinations(product: Product) -> tuple[tuple[tuple[str, str], ...], ...]:
    """Return the combinations of a product's options, as names and values."""
    names = [option.name for option in product.options]
    every = itertools.product(*(option.values for option in product.options))
    return tuple(tuple(zip(names, values, strict=True)) for values in every)


def _split_of(wish: Wish) -> Split:
    part = hashlib.sha256(_asked(wish).encode()).digest()[0] % 10
    return _DEV_AND_TEST.get(part, Split.TRAIN)


def _asked(wish: Wish) -> str:
    return "|".join((wish.product.query, *sorted(wish.attributes), *(value for _, value in wish.options)))


def worded(wish: Wish, seed: int) -> Goal:
    """Put a wish into words, with a price cap; both are drawn from the seed.

    The cap is the higher of two of the product's :func:`price_caps`, as upstream draws it.
    """
    draw = Draw(f"{wish.product.asin} {wish.number} {seed}")
    cap = float(max(draw.some(price_caps(wish.product.price), 2)))
    attributes = tuple(draw.some(wish.attributes, 2))
    text = instruction(draw.below(WORDINGS), wish.product.query, attributes, wish.options) + price_words(cap)
    return Goal(text, Request(attributes, wish.options, cap, wish.product))


def generated_goal(asin: str, number: int, seed: int) -> Goal:
    """Return a goal of the generated shop.

    Args:
        asin: Of the product it was made from.
        number: Of the wish among the product's.
        seed: Of words and price cap.

    Raises:
        KeyError: where there is no such product.
        IndexError: where it has no such wish.
    """
    return worded(_wishes_by_asin(asin)[number], seed)


@functools.lru_cache(maxsize=1024)
def _wishes_by_asin(asin: str) -> tuple[Wish, ...]:
    product = generated_by_asin()[asin]
    return (*wishes_of(product), *more_hidden_wishes_of(product))


def instruction(
    wording: int, kind: str, attributes: Sequence[str], options: Sequence[tuple[str, str]]
) -> str:
    """Return an instruction without its price clause; the first wording is upstream's for generated goals."""
    one, other = attributes
    named = ", and ".join(f"{name}: {value}" for name, value in options)
    plain = " and ".join(f"{value} {name}" for name, value in options)
    return (
        f"find me {one}, {other} {kind} with {named}",
        f"i need {one} {kind} that are {other}, in {plain}",
        f"i am looking for {kind}, {one} and {other}, with {named}",
        f"i want to buy {one}, {other} {kind} in {plain}",
        f"looking for {plain} {kind} that are {one} and {other}",
    )[wording]
