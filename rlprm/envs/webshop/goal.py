"""A goal: what the instruction asks for, and the price cap in its words."""

from __future__ import annotations

from dataclasses import dataclass

from rlprm.envs.webshop.reward import Request

__all__ = ["NO_CAP", "Goal", "price_caps", "price_words"]

NO_CAP = 1_000_000.0
"""The price cap of a goal without one, upstream's."""

_HIGHEST_CAP = 990


@dataclass(frozen=True, slots=True)
class Goal:
    """An instruction, and what meets it."""

    instruction: str
    request: Request


def price_caps(price: float) -> list[int]:
    """Return the price caps a product can get: the next four multiples of 10 dollars, as upstream."""
    first = int(price // 10) * 10 + 10
    return [cap for cap in range(first, first + 40, 10) if cap <= _HIGHEST_CAP]


def price_words(cap: float) -> str:
    """Return the last words of an instruction."""
    return "" if cap >= NO_CAP else f", and price lower than {cap:.2f} dollars"
