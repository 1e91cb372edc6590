"""A shop: products that can be searched for."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from rlprm.envs.webshop.search.index import SearchIndex
from rlprm.envs.webshop.shop.generated_products import generated_products
from rlprm.envs.webshop.shop.product import Product, documented

__all__ = ["Shop", "generated_shop"]


@dataclass(frozen=True)
class Shop:
    """Products that can be searched for."""

    index: SearchIndex
    product: Callable[[int], Product]
    """Returns the product at a place of the index."""


@functools.cache
def generated_shop() -> Shop:
    """Return the shop with the generated catalogue; built once per process."""
    products = generated_products()
    return Shop(SearchIndex.of(map(documented, products)), products.__getitem__)
