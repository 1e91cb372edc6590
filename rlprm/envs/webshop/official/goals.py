"""The goals of official data, as numbers in upstream's order and as goals."""

from __future__ import annotations

import random
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rlprm.envs.webshop.goal import NO_CAP, Goal, price_caps, price_words
from rlprm.envs.webshop.reward import Request
from rlprm.envs.webshop.shop.product import Option, Product
from rlprm.errors import DataError

__all__ = ["GOAL_KINDS", "GoalLists", "official_goal"]

GOAL_KINDS = ("synthetic", "human", "human_agentgym")
"""``human`` is princeton's list, one goal an instruction with a drawn price cap. ``human_agentgym`` has one
goal for each price cap of an instruction."""
_GOALS_WITHOUT_CAP = 4  # of an instruction in AgentGym's list, all alike
_MOST_COMBINATIONS = 10_000_000  # of a product's options; upstream holds all of them in memory
_SEED = 233
"""Of price caps and of the order of goals: AgentGym's for the former, upstream's for the latter."""


def official_goal(kind: str, product: Product, record: Mapping[str, Any], entry: int, cap: int) -> Goal:
    """Return a goal.

    Args:
        kind: One of :data:`GOAL_KINDS`.
        product: It is made from.
        record: What is stored about the product.
        entry: Number of the combination of options, or of the human instruction.
        cap: Price cap in dollars, 0 for none.
    """
    if kind != "synthetic":
        text, attributes, values = record["human"][entry]
        options = tuple(("", value) for value in values)
    else:
        text, attributes = record["instruction"]
        options = _combination(product, entry)
        named = ", and ".join(f"{name}: {value}" for name, value in options)
        text += f" with {named}" if named else ""
    price_cap = float(cap) if cap else NO_CAP
    return Goal(text + price_words(price_cap), Request(tuple(attributes), options, price_cap, product))


class GoalLists:
    """Goals as numbers: place of the product, which of its instructions or combinations, price cap or 0."""

    def __init__(self) -> None:
        self._rows = {kind: array("i") for kind in GOAL_KINDS}
        self._caps = {kind: random.Random(_SEED) for kind in GOAL_KINDS}

    def add(self, place: int, product: Product, *, synthetic: bool, human: int) -> None:
        """Add the goals of the next product.

        All synthetic goals of a product share a price cap, and each of princeton's human goals has one. Of
        AgentGym's human goals an instruction has one for each cap that can be drawn. If fewer than two caps
        can be drawn, goals have none.

        Raises:
            DataError: where its options have more combinations than could be goals.
        """
        if synthetic:
            count = _combinations(product)
            if count > _MOST_COMBINATIONS:
                raise DataError(
                    f"WebShop product {product.asin!r}: its options have {count} combinations, "
                    f"allowed: {_MOST_COMBINATIONS}"
                )
            cap = self._cap("synthetic", product)
            for number in range(count):
                self._rows["synthetic"].extend((place, number, cap))
        caps = price_caps(product.price)
        for number in range(human):
            self._rows["human"].extend((place, number, self._cap("human", product)))
            for cap in caps if len(caps) >= 2 else [0] * _GOALS_WITHOUT_CAP:
                self._rows["human_agentgym"].extend((place, number, cap))

    def save(self, folder: Path) -> None:
        """Write the goals in upstream's order, which depends on nothing but their number."""
        for kind, rows in self._rows.items():
            table = np.frombuffer(rows, dtype=np.int32).reshape(-1, 3)
            order = array("i", range(len(table)))
            random.Random(_SEED).shuffle(order)
            np.save(folder / f"{kind}.npy", table[np.frombuffer(order, dtype=np.int32)])

    def _cap(self, kind: str, product: Product) -> int:
        caps = price_caps(product.price)
        return max(self._caps[kind].sample(caps, 2)) if len(caps) >= 2 else 0


def _sorted_options(product: Product) -> list[Option]:
    return sorted(product.options, key=lambda option: option.name)


def _combinations(product: Product) -> int:
    count = 1
    for option in product.options:
        count *= len(option.values)
    return count


def _combination(product: Product, number: int) -> tuple[tuple[str, str], ...]:
    """Return a combination of options by its number; the last option, by name, changes first."""
    chosen = []
    for option in reversed(_sorted_options(product)):
        number, which = divmod(number, len(option.values))
        chosen.append((option.name, option.values[which]))
    return tuple(reversed(chosen))
