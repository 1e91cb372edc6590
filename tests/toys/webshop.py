"""A small shop and official files to test WebShop with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlprm.envs.webshop import Option, Product, Review, WebShop
from rlprm.envs.webshop.goal import Goal
from rlprm.envs.webshop.reward import Request
from rlprm.envs.webshop.search.index import SearchIndex
from rlprm.envs.webshop.settings import Setting
from rlprm.envs.webshop.shop.product import documented
from rlprm.envs.webshop.shop.shop import Shop


def product(asin: str = "B000000001", title: str = "norvia hiking boots", **fields: Any) -> Product:
    """A product of which only what matters is said."""
    given: dict[str, Any] = {
        "description": "",
        "bullets": (),
        "price": 30.0,
        "price_tag": "$30.0",
        "options": (),
        "attributes": (),
        "category": "fashion",
        "query": "hiking boots",
        "product_category": "shoes › outdoor › hiking boots",
    }
    return Product(asin=asin, title=title, **(given | fields))


BOOTS = product(
    "B00BOOTS01",
    "norvia hiking boots",
    description="Boots for rain.",
    bullets=("water resistant", "quick drying"),
    price=49.99,
    price_tag="$49.99",
    options=(Option("color", ("navy", "black")), Option("size", ("8", "9"))),
    attributes=("water resistant", "quick drying"),
    rating="4.5",
    reviews=(Review("just right", "5.0", "they fit"),),
)
SANDALS = product(
    "B00SANDAL1",
    "keltro hiking sandals",
    price=20.0,
    price_tag="$20.0",
    query="sandals",
    attributes=("open toe",),
)
INSTRUCTION = "find me water resistant hiking boots with color: navy, and size: 9"
GOAL = Goal(
    INSTRUCTION,
    Request(("water resistant", "quick drying"), (("color", "navy"), ("size", "9")), 60.0, BOOTS),
)


def shop_of(products: Sequence[Product]) -> Shop:
    """A shop in memory."""
    return Shop(SearchIndex.of(map(documented, products)), products.__getitem__)


def episode(products: Sequence[Product] = (BOOTS, SANDALS), goal: Goal = GOAL, **setting: Any) -> WebShop:
    """An episode that has begun."""
    env = WebShop(shop_of(products), goal, Setting(**setting))
    env.reset()
    return env


def raw_product(asin: str, name: str = "norvia boots", **fields: Any) -> dict[str, Any]:
    """An element of the official product file, with the fields that are read and some that are not."""
    return {
        "asin": asin,
        "name": name,
        "category": "fashion",
        "query": "Hiking Boots ",
        "product_category": "Shoes › Outdoor › Hiking Boots",
        "full_description": "Boots for rain.",
        "small_description": ["water resistant", "made to last"],
        "pricing": "$49.99",
        "customization_options": {},
        "images": ["https://example.org/1.jpg"],
        "brand": "norvia",
        "total_reviews": 3,
    } | fields


def options_of(values: Mapping[str, Sequence[str] | None]) -> dict[str, list[dict[str, Any]] | None]:
    """The official form of options."""
    return {
        name: None if given is None else [{"value": value, "image": None} for value in given]
        for name, given in values.items()
    }


def write_official(
    folder: Path,
    products: Sequence[Mapping[str, Any]],
    entries: Mapping[str, Any],
    human: Mapping[str, Any] | None = None,
    ending: str = "_1000",
) -> Path:
    """Write files as WebShop has them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"items_shuffle{ending}.json").write_text(json.dumps(products, indent=1))
    (folder / f"items_ins_v2{ending}.json").write_text(json.dumps(entries))
    if human is not None:
        (folder / "items_human_ins.json").write_text(json.dumps(human))
    return folder


COLORS, SIZES = ["red", "blue", "green"], ["8", "9"]


def small_data(folder: Path, count: int = 30, *, colors: int = 3, human: bool = False) -> Path:
    """So many products, of which every second has an instruction, with colours and two sizes."""
    names = [f"color {n}" for n in range(colors)] if colors > 3 else COLORS[:colors]
    products = [
        raw_product(
            f"B{n:09}",
            f"Norvia boots number{n}",
            pricing=f"${n + 5}.00",
            customization_options=options_of({"Size": SIZES, "Color": names}),
        )
        for n in range(count)
    ]
    entries = {
        p["asin"]: {"attributes": ["water resistant"]}
        | (
            {"instruction": f"Find me boots number{n}", "instruction_attributes": ["water resistant"]}
            if n % 2 == 0
            else {}
        )
        for n, p in enumerate(products)
    }
    spoken = {
        p["asin"]: [
            {
                "instruction": f"i want boots number{n}.",
                "instruction_attributes": ["water resistant"],
                "instruction_options": ["red"],
                "worker_id": "x",
            },
            {"instruction": "no attributes", "instruction_attributes": [], "instruction_options": []},
        ]
        for n, p in enumerate(products)
    }
    return write_official(folder, products, entries, spoken if human else None)
