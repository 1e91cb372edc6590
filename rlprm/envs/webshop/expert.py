"""Demonstrations: a shopper who knows what the instruction asks for, and sees what the pages show.

It searches with the instruction's own words, opens the affordable result whose title has most of
them, makes sure of its options and, on the features page, of the attributes its title does not name,
and goes back to the next best result where something is missing. It does not use which product the
goal was made from.
"""

from __future__ import annotations

import re

from rlprm.envs.webshop import pages
from rlprm.envs.webshop.environment import WebShop
from rlprm.envs.webshop.goal import Goal
from rlprm.envs.webshop.reward import option_met
from rlprm.envs.webshop.search.analyzer import STOP_WORDS, terms
from rlprm.envs.webshop.shop.product import Product
from rlprm.envs.webshop.tasks import make, shop_and_goal
from rlprm.errors import DemonstrationError
from rlprm.types import End, Task

__all__ = ["ROUND_LIMIT", "demonstrate", "query_of"]

ROUND_LIMIT = 10
"""Turns of an episode, AgentGym's number."""

_PRICE_CLAUSE = re.compile(r",? and price lower than [\d.]+ dollars$")
_WORD = re.compile(r"[^\s,;:.?!()]+(?:\.\d+)?")
_ASKING = "i i'm im am me my you find need want buy get looking look would like please some which have has"
_OPTION_NAMES = "color size flavor scent count material length style name"
_NOT_SEARCHED = STOP_WORDS | frozenset(f"{_ASKING} {_OPTION_NAMES}".split())
_DOLLARS = re.compile(r"\d+(?:\.\d+)?")


def demonstrate(task: Task, *, end: End) -> list[str]:
    """Return the shopper's actions, tried out in the environment.

    Args:
        task: What to solve.
        end: Makes no difference.

    Raises:
        DemonstrationError: where the purchase does not get the full reward, or takes too many rounds.
    """
    episode = make(task, end=end)
    episode.reset()
    actions = _Shopper(episode, shop_and_goal(task)[1]).shop()
    if not episode.outcome().success:
        raise DemonstrationError(
            f"{task.id}: the purchase after {actions} has reward {episode.outcome().score:.2f}"
        )
    return actions


def query_of(instruction: str) -> str:
    """Return the words of an instruction to search with: all but the price clause and what every one has."""
    words = _WORD.findall(_PRICE_CLAUSE.sub("", instruction))
    return " ".join([word for word in words if word.lower() not in _NOT_SEARCHED] or words)


class _Shopper:
    """Shops in one episode."""

    def __init__(self, episode: WebShop, goal: Goal) -> None:
        self._episode = episode
        self._wanted = goal.request
        self._query = query_of(goal.instruction)
        self._words = frozenset(terms(self._query))
        self._refused: set[str] = set()
        self._actions: list[str] = []

    def shop(self) -> list[str]:
        """Search, look at results until one fits, buy it."""
        self._do(f"search[{self._query}]")
        while True:
            product = self._next_result()
            if product is None:
                self._do(f"click[{pages.NEXT}]")
                continue
            self._do(f"click[{product.asin}]")
            choices = self._choices(product)
            if choices is not None and self._has_attributes(product, len(choices)):
                break
            self._refused.add(product.asin)
            self._do(f"click[{pages.PREVIOUS}]")
        for value in choices:
            self._do(f"click[{value}]")
        self._do(f"click[{pages.BUY}]")
        return self._actions

    def _do(self, action: str) -> None:
        turn = self._episode.step(action)
        self._actions.append(action)
        if not turn.valid or (len(self._actions) >= ROUND_LIMIT and turn.stop is None):
            raise DemonstrationError(f"nothing was bought by {self._actions}")

    def _next_result(self) -> Product | None:
        """Return an affordable product of the page whose title has enough of the words, or most of them."""
        candidates = [product for product in self._episode.shown() if self._can_be(product)]
        return max(
            candidates, key=lambda product: min(3, len(self._words & set(terms(product.title)))), default=None
        )

    def _can_be(self, product: Product) -> bool:
        price = float(_DOLLARS.findall(product.price_tag)[-1])
        return product.asin not in self._refused and price <= self._wanted.price_cap

    def _choices(self, product: Product) -> list[str] | None:
        """Return the option values to click, None where one is missing."""
        chosen = []
        for name, wanted in self._wanted.options:
            values = (value for option in product.options for value in option.values)
            offered = [value for value in values if option_met(name, wanted, [value], rule="fixed")]
            if not offered:
                return None
            chosen.append(wanted if wanted in offered else offered[0])
        return chosen

    def _has_attributes(self, product: Product, choices: int) -> bool:
        """Look for attributes in the title, then on the features page, while there are rounds to do so."""
        if self._named(product.title):
            return True
        if len(self._actions) + 2 + choices + 1 > ROUND_LIMIT:
            return True
        self._do(f"click[{pages.SUB_PAGES[1]}]")
        self._do(f"click[{pages.PREVIOUS}]")
        return self._named(" ".join((product.title, *product.bullets)))

    def _named(self, text: str) -> bool:
        words = set(terms(text))
        return all(words.issuperset(terms(attribute)) for attribute in self._wanted.attributes)
