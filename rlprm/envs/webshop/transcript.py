"""A rule that reads off the pages how well the open or bought product meets the instruction.

The rule compares words: those of the instruction with those of the product's title, of the options that were
clicked and of the sub pages that were opened, and the price with the cap. The goal's attributes and the
product that the goal was made from are hidden from the rule, as from the agent.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from rlprm.envs.webshop.actions import parse_action
from rlprm.envs.webshop.pages import BACK, BUY, PREVIOUS, SEPARATOR

__all__ = ["read_transcript"]

_CAP = re.compile(r",? and price lower than ([\d.]+) dollars")
_PRICE = re.compile(r"Price: \$([\d.]+)")
_WORD = re.compile(r"[a-z0-9]+(?:[.'-][a-z0-9]+)*")
_MARK = re.compile(r"\[(?:clicked )?button_?\]")
_ASKING = frozenset(
    ["a", "am", "and", "are", "buy", "find", "for", "i", "in", "is", "looking", "me", "need", "of", "that",
     "the", "to", "want", "with"]
)  # fmt: skip
"""Words that ask for something and name nothing."""
_BEFORE_PURCHASE = 0.5
"""Factor of an open product's share: the purchase is still to come."""


@dataclass
class _Open:
    """The product whose page is open."""

    title: str
    affordable: bool
    words: set[str] = field(default_factory=set)


def read_transcript(start: str, turns: Sequence[tuple[str, str]]) -> list[float]:
    """Return the share of the instruction's words and price cap that the product meets.

    After a purchase the share is that of the bought product. An open product gets half of its share, any
    other page 0. See :meth:`rlprm.envs.base.EnvironmentModule.read_transcript`.
    """
    instruction = next((text for text in _pieces(start)[1:] if text not in ("Instruction:", BACK)), "")
    cap = _CAP.search(instruction)
    asked = _words(_CAP.sub("", instruction)) - _ASKING
    product: _Open | None = None
    bought, verdicts = False, []
    for action, answer in turns:
        clicked = (parsed := parse_action(action)) and parsed.name == "click" and parsed.target
        if clicked == BUY.lower() and not answer:  # the closing page is hidden: it states the reward
            bought = True
        elif answer:
            product = _after(product, clicked or "", _pieces(answer), float(cap[1]) if cap else None)
        met = len(asked & product.words) + product.affordable if product else 0
        verdicts.append(met / (len(asked) + 1) * (1.0 if bought else _BEFORE_PURCHASE))
    return verdicts


def _after(product: _Open | None, clicked: str, page: list[str], cap: float | None) -> _Open | None:
    """Return what is known of the open product once a page is shown; None if the page is no product's."""
    if BUY in page:
        prices = [(place, found) for place, text in enumerate(page) if (found := _PRICE.match(text))]
        place, found = prices[-1] if prices else (0, None)
        title = page[place - 1]
        if product is None or product.title != title:
            affordable = found is not None and (cap is None or float(found[1]) <= cap)
            product = _Open(title, affordable, _words(title))
        if clicked in [text.lower() for text in page[: place - 1]]:
            product.words |= _words(clicked)
        return product
    if product is not None and PREVIOUS in page and not any(text.startswith("Page ") for text in page):
        product.words |= _words(" ".join(page[page.index(PREVIOUS) + 1 :]))
        return product
    return None


def _pieces(page: str) -> list[str]:
    """Return the texts of a page in either form, see :mod:`rlprm.envs.webshop.pages`."""
    if SEPARATOR.strip() in page:
        return [text.strip() for text in page.split(SEPARATOR.strip())]
    return [text for line in page.splitlines() if (text := _MARK.sub("", line).strip())]


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))
