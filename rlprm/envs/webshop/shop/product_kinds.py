"""What the generated catalogue is made of: kinds of products, their attributes, options and prices.

Everything is lower case and short: a word is the same token in an instruction, a title and a query,
and a page stays readable for a small model. No two attributes of a category and no two values of an
option are so alike that the reward takes one for the other.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BRANDS", "CATEGORIES", "OPTION_VALUES", "Category", "Kind"]


@dataclass(frozen=True)
class Kind:
    """Products of one kind, such as hiking boots."""

    name: str
    """Plural; what one searches for."""
    options: tuple[str, ...]
    """What can be chosen, at most two; see :data:`OPTION_VALUES`."""
    price: int
    """What a cheap one costs, in dollars."""


@dataclass(frozen=True)
class Category:
    """Kinds of products that share their attributes."""

    name: str
    path: str
    """The first two steps of the product category."""
    attributes: tuple[str, ...]
    kinds: tuple[Kind, ...]


OPTION_VALUES: dict[str, tuple[str, ...]] = {
    "color": ("black", "white", "navy", "green", "grey", "pink", "purple", "brown", "orange", "teal"),
    "size": ("small", "medium", "large", "oversize"),
    "bed size": ("twin", "full", "queen", "king"),
    "shoe size": ("6", "7", "8", "9", "11"),
    "flavor": ("mint", "ginger", "vanilla", "cinnamon", "honey", "coconut", "lemon"),
    "scent": ("jasmine", "lavender", "cedar", "eucalyptus", "citrus", "unscented"),
    "count": ("single", "pair", "dozen", "bundle"),
    "material": ("cotton", "bamboo", "leather", "ceramic", "nylon", "oak"),
    "length": ("short", "long", "extra tall"),
}
"""The values of each option, in the order in which pages show them; of its key, pages show the last word."""

CATEGORIES: tuple[Category, ...] = (
    Category(
        "fashion",
        "clothing › everyday wear",
        ("water resistant", "machine washable", "quick drying", "light weight", "arch support",
         "wide fit", "fleece lined", "stretch fabric"),
        (
            Kind("hiking boots", ("color", "shoe size"), 48),
            Kind("running shoes", ("color", "shoe size"), 39),
            Kind("rain jackets", ("color", "size"), 35),
            Kind("yoga pants", ("color", "size"), 19),
            Kind("winter gloves", ("color", "size"), 13),
        ),
    ),
    Category(
        "electronics",
        "electronics › accessories",
        ("fast charging", "tangle free", "long lasting", "shock proof", "wireless pairing",
         "dust sealed", "travel ready", "low heat"),
        (
            Kind("earbuds", ("color",), 24),
            Kind("phone cases", ("color", "material"), 11),
            Kind("charging cables", ("color", "length"), 9),
            Kind("portable speakers", ("color",), 29),
            Kind("power banks", ("color", "count"), 22),
        ),
    ),
    Category(
        "home",
        "home › living room",
        ("easy clean", "stain proof", "hand woven", "fade resistant", "double sided",
         "heat insulated", "extra soft", "pre washed"),
        (
            Kind("throw pillows", ("color", "size"), 14),
            Kind("area rugs", ("color", "size"), 46),
            Kind("window curtains", ("color", "length"), 21),
            Kind("bed sheets", ("color", "bed size"), 27),
            Kind("storage baskets", ("color", "material"), 12),
        ),
    ),
    Category(
        "kitchen",
        "kitchen › cookware and dining",
        ("dishwasher safe", "non stick", "leak proof", "bpa free", "space saving", "scratch resistant",
         "gift boxed", "easy grip"),
        (
            Kind("coffee mugs", ("color", "count"), 9),
            Kind("frying pans", ("color", "size"), 23),
            Kind("cutting boards", ("material", "size"), 15),
            Kind("water bottles", ("color", "size"), 12),
            Kind("lunch boxes", ("color",), 16),
        ),
    ),
    Category(
        "beauty",
        "beauty › personal care",
        ("cruelty free", "paraben free", "deep moisturizing", "sun protecting", "travel friendly",
         "sensitive skin", "plant based", "oil absorbing"),
        (
            Kind("face creams", ("scent",), 13),
            Kind("lip balms", ("flavor", "count"), 7),
            Kind("body lotions", ("scent", "size"), 10),
            Kind("shampoo bars", ("scent", "count"), 8),
            Kind("hair masks", ("scent",), 15),
        ),
    ),
    Category(
        "grocery",
        "grocery › pantry snacks",
        ("gluten free", "sugar free", "certified organic", "high protein", "low sodium", "small batch",
         "dairy free", "slow roasted"),
        (
            Kind("granola bars", ("flavor", "count"), 8),
            Kind("herbal teas", ("flavor", "size"), 7),
            Kind("nut butters", ("flavor", "size"), 11),
            Kind("rice crackers", ("flavor",), 6),
            Kind("dark chocolates", ("flavor", "count"), 9),
        ),
    ),
    Category(
        "sports",
        "sports › outdoor gear",
        ("anti slip", "tear resistant", "easy carry", "sweat proof", "quick drying", "padded edges",
         "wind proof", "reflective trim"),
        (
            Kind("yoga mats", ("color", "length"), 18),
            Kind("camping tents", ("color", "size"), 64),
            Kind("bike helmets", ("color", "size"), 31),
            Kind("swim goggles", ("color",), 12),
            Kind("sleeping bags", ("color", "length"), 37),
        ),
    ),
    Category(
        "office",
        "office › desk supplies",
        ("space saving", "acid free", "smudge proof", "tool free", "refill ready", "recycled paper",
         "soft touch", "anti glare"),
        (
            Kind("notebooks", ("color", "count"), 7),
            Kind("desk lamps", ("color",), 25),
            Kind("gel pens", ("color", "count"), 6),
            Kind("office chairs", ("color", "material"), 82),
            Kind("desk organizers", ("material",), 17),
        ),
    ),
    Category(
        "toys",
        "toys › games and play",
        ("non toxic", "hand painted", "battery free", "early learning", "splinter free", "glow dark",
         "snap together", "award winning"),
        (
            Kind("building blocks", ("material", "count"), 19),
            Kind("plush bears", ("color", "size"), 14),
            Kind("jigsaw puzzles", ("size",), 11),
            Kind("toy trains", ("color", "material"), 23),
            Kind("kites", ("color",), 13),
        ),
    ),
    Category(
        "pets",
        "pets › dogs and cats",
        ("chew proof", "odor control", "vet approved", "hand stitched", "self warming", "hypo allergenic",
         "eco friendly", "machine washable"),
        (
            Kind("dog beds", ("color", "size"), 28),
            Kind("cat scratchers", ("material", "size"), 16),
            Kind("dog leashes", ("color", "length"), 10),
            Kind("pet treats", ("flavor", "count"), 8),
            Kind("pet carriers", ("color", "size"), 33),
        ),
    ),
    Category(
        "garden",
        "garden › patio and lawn",
        ("rust proof", "solar powered", "frost resistant", "quick store", "low upkeep", "heavy duty",
         "child safe", "uv stable"),
        (
            Kind("garden hoses", ("color", "length"), 24),
            Kind("plant pots", ("material", "size"), 12),
            Kind("path lights", ("color", "count"), 20),
            Kind("patio umbrellas", ("color",), 55),
            Kind("pruning shears", ("color", "size"), 14),
        ),
    ),
)  # fmt: skip

BRANDS: tuple[str, ...] = (
    "norvia", "keltro", "bramwell", "ostara", "pellor", "quindle", "tavani", "umbrik", "vexley", "wrenfold",
    "zarrin", "aldine", "corvant", "dunmere", "elmstead", "farrow", "gildan", "harlox", "ivelle", "jorvik",
)  # fmt: skip
"""Invented; a brand sells several kinds of things."""
