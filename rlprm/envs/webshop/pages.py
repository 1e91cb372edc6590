"""The pages of the shop: what they show, and what can be clicked on them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import NamedTuple

from rlprm.envs.webshop.shop.product import Product

__all__ = [
    "ATTRIBUTES", "BACK", "BUY", "NEXT", "PREVIOUS", "SEARCH", "SUB_PAGES", "Kind", "Piece", "as_rich_text",
    "as_text", "done_page", "item_page", "results_page", "start_page", "sub_page",
]  # fmt: skip

SEARCH = "Search"
BACK = "Back to Search"
NEXT = "Next >"
PREVIOUS = "< Prev"
BUY = "Buy Now"
ATTRIBUTES = "Attributes"
SUB_PAGES = ("Description", "Features", "Reviews")
"""Of every product; :data:`ATTRIBUTES` is one more where it is shown."""

SEPARATOR = " [SEP] "

_WHITE_SPACE = " \t\n\f\r"


class Kind(Enum):
    """What a piece of a page is."""

    TEXT = "text"
    BUTTON = "button"
    OPTION = "option"
    PRODUCT = "product"


class Piece(NamedTuple):
    """One text of a page, with the blanks that upstream's templates have around it."""

    kind: Kind
    text: str


def start_page(instruction: str) -> list[Piece]:
    """Return the page an episode starts with."""
    return [_plain("WebShop"), _plain("Instruction: "), _plain(instruction), _button(SEARCH)]


def results_page(instruction: str, shown: Iterable[Product], *, number: int, total: int) -> list[Piece]:
    """Return a page of search results.

    ``Next >`` stands on every page, the last and empty ones included, as upstream.

    Args:
        instruction: Shown on every page.
        shown: The products of this page.
        number: Of the page, from 1.
        total: Results on all pages.
    """
    pieces = [
        *_instructed(instruction),
        _button(BACK),
        _plain(f"Page {number} (Total results: {total})"),
        *([_button(PREVIOUS)] if number > 1 else []),
        _button(NEXT),
    ]
    for product in shown:
        pieces += [Piece(Kind.PRODUCT, product.asin), _plain(product.title), _plain(product.price_tag)]
    return pieces


def item_page(instruction: str, product: Product, *, attributes: bool) -> list[Piece]:
    """Return the page of a product; ``attributes`` adds a button to see its attributes."""
    pieces = [*_instructed(instruction), _button(BACK), _button(PREVIOUS)]
    for option in product.options:
        pieces.append(_plain(option.name))
        pieces += [Piece(Kind.OPTION, value) for value in option.values]
    pieces += [
        _plain(product.title),
        _plain(f"Price: {product.price_tag}"),
        _plain(f"Rating: {product.rating}"),
        *map(_button, SUB_PAGES),
    ]
    if attributes:
        pieces.append(_button(ATTRIBUTES))
    pieces.append(_button(BUY))
    return pieces


def sub_page(instruction: str, product: Product, name: str) -> list[Piece]:
    """Return a page with more about a product; ``name`` is that of the button that leads to it.

    A product without description, features or reviews has an empty page, as upstream.
    """
    texts = {"Description": _description, "Features": _features, "Reviews": _reviews, ATTRIBUTES: _attributes}
    return [*_instructed(instruction), _button(BACK), _button(PREVIOUS), *map(_plain, texts[name](product))]


def done_page(asin: str, chosen: Mapping[str, str], reward: float) -> list[Piece]:
    """Return the page after a purchase, with upstream's unused fields; ``chosen`` has names and values."""
    options = json.dumps(chosen, sort_keys=True)
    for letter in "<>&'":  # as Flask writes JSON into HTML
        options = options.replace(letter, f"\\u{ord(letter):04x}")
    nothing = ("attrs", "None", "category", "None", "query", "None", "product category", "None")
    target = (
        "asin",
        "options",
        "attrs",
        "price upper",
        "instuction text",
        "category",
        "product category",
        "query",
    )
    texts = (
        "Thank you for shopping with us!", "Your code: ", "None", " (Paste it in your MTurk interface.)",
        "Purchased", "asin", asin, "options", options, *nothing, "Target", *target, "Goal ", "None",
        "Reward", "Your score (min 0.0, max 1.0)", str(reward), "Reward Details ", "None",
    )  # fmt: skip
    return [_plain(text) for text in texts]


def as_text(pieces: Iterable[Piece]) -> str:
    """Return a page as upstream's text mode does; a blank piece leaves a separator with nothing behind it."""
    return SEPARATOR.join(piece.text.strip() for piece in _parsed(pieces))


def as_rich_text(pieces: Iterable[Piece], *, chosen: Mapping[str, str], seen: Iterable[str]) -> str:
    """Return a page as upstream's rich text mode does: a line for each piece, with what is clickable marked.

    Args:
        pieces: Of the page.
        chosen: Names and values of the options that were clicked.
        seen: ASINs of products whose page was opened since the last search page.
    """
    # Upstream looks for the quoted value in the JSON of its address. So a value with a quotation mark or a
    # letter beyond ASCII is never marked as clicked, and the name of a chosen option is, if it is a value.
    address, seen = json.dumps(chosen), set(seen)
    clicked, lines = [], []
    for kind, text in _parsed(pieces):
        if kind is Kind.BUTTON:
            lines.append(f"[button] {text} [button_]\n")
        elif kind is Kind.OPTION and f'"{text}"' in address:
            clicked.append(f"You have clicked {text}.\n")
            lines.append(f"  [clicked button] {text} [clicked button_]\n")
        elif kind is Kind.OPTION:
            lines.append(f"  [button] {text} [button_]\n")
        elif kind is Kind.PRODUCT:
            mark = "clicked button" if text in seen else "button"
            lines.append(f"\n[{mark}] {text} [{mark}_]\n")
        else:
            lines.append(f"{text}\n")
    return "".join((*reversed(clicked), *lines))


def _parsed(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Return the pieces as upstream's HTML parser does.

    An empty text is no node of a page. A text of white space alone becomes one blank, or a newline if
    it holds one; upstream shows the blank and skips the newline.
    """
    for piece in pieces:
        if piece.text.strip(_WHITE_SPACE):
            yield piece
        elif piece.text and "\n" not in piece.text:
            yield Piece(piece.kind, " ")


def _instructed(instruction: str) -> tuple[Piece, Piece]:
    return _plain("Instruction:"), _plain(instruction)


def _plain(text: str) -> Piece:
    return Piece(Kind.TEXT, text)


def _button(text: str) -> Piece:
    return Piece(Kind.BUTTON, text)


def _description(product: Product) -> tuple[str, ...]:
    return (product.description,)


def _features(product: Product) -> tuple[str, ...]:
    return tuple(f" {bullet}" for bullet in product.bullets)  # upstream's template has a blank here


def _attributes(product: Product) -> tuple[str, ...]:
    listed = (f" {attribute}" for attribute in product.attributes)
    return (*listed, product.category, product.query, product.product_category)


def _reviews(product: Product) -> Iterator[str]:
    for review in product.reviews:
        yield from (f'"{review.title}"', review.score, review.body)
