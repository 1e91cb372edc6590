"""A product, as pages show it and as the reward judges it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Option", "Product", "Review", "documented"]


class Option(NamedTuple):
    """Something to be chosen about a product."""

    name: str
    values: tuple[str, ...]


class Review(NamedTuple):
    """What a customer wrote."""

    title: str
    score: str
    body: str


@dataclass(frozen=True, slots=True)
class Product:
    """One product."""

    asin: str
    """Its identifier, at most ten characters."""
    title: str
    description: str
    bullets: tuple[str, ...]
    """The lines of the features page."""
    price: float
    """What it costs, in dollars."""
    price_tag: str
    """What pages show as its price; can be a range."""
    options: tuple[Option, ...]
    attributes: tuple[str, ...]
    """What it is known to be ("water resistant"); not shown unless the attributes page is."""
    category: str
    query: str
    """The query that upstream found the product with, lower case."""
    product_category: str
    """Steps from the general to the particular, with ``›`` between them."""
    rating: str = "N.A."
    reviews: tuple[Review, ...] = ()


def documented(product: Product) -> str:
    """Return the text by which a product is found: title, description, first bullet and options."""
    options = ", and ".join(f"{option.name}: {', '.join(option.values)}" for option in product.options)
    first = product.bullets[0] if product.bullets else ""
    return " ".join((product.title, product.description, first, options)).lower()
