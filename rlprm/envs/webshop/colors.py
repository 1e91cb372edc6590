"""Colours as the reward compares them: by the first word of upstream's list that a value contains."""

from __future__ import annotations

import functools
from collections.abc import Container

__all__ = ["COLORS", "first_color", "normalized"]

_WORDS = """
    alabaster apricot aqua ash asphalt azure banana beige black blue blush bordeaux bronze brown burgundy
    camel camo caramel champagne charcoal cheetah chestnut chocolate christmas coffee cognac copper coral
    cranberry cream crystal dark denim eggplant elephant espresso fuchsia gold granite grape graphite grass
    gray green grey heather indigo ivory ivy khaki lavender lemon leopard light lilac lime magenta maroon
    mauve merlot midnight mint mocha multicolor mushroom mustard natural navy nude olive orange peach pewter
    pink plum purple rainbow red rose royal rust sand sapphire seashell silver skull slate steel stone
    stonewash sunflower tan taupe teal tiger turquoise violet walnut wheat white wine yellow
"""
COLORS: tuple[str, ...] = tuple(_WORDS.split())
"""In upstream's order; the first that is found counts."""


@functools.lru_cache(maxsize=50_000)
def normalized(value: str) -> str:
    """Return the colour a value contains, else the value itself: ``"dark red"`` is ``"dark"``."""
    return first_color(value) or value


def first_color(container: Container[str]) -> str | None:
    """Return the first colour of the list that is in a text (as a part of it) or in a collection."""
    return next((color for color in COLORS if color in container), None)
