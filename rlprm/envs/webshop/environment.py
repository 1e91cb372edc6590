"""One episode of WebShop as text."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from enum import Enum

from rlprm.envs.webshop import pages
from rlprm.envs.webshop.actions import parse_action
from rlprm.envs.webshop.goal import Goal
from rlprm.envs.webshop.reward import purchase_reward
from rlprm.envs.webshop.settings import Setting
from rlprm.envs.webshop.shop.product import Product
from rlprm.envs.webshop.shop.shop import Shop
from rlprm.envs.webshop.title_nouns import noun_finder
from rlprm.types import Outcome, StopReason, Turn

__all__ = ["Place", "State", "WebShop"]


class Place(Enum):
    """The kinds of pages."""

    START = "start"
    RESULTS = "results"
    ITEM = "item"
    SUB = "sub page"


@dataclass(frozen=True, slots=True)
class State:
    """Which page is shown."""

    place: Place = Place.START
    results: tuple[int, ...] = ()
    """Places of the search results."""
    number: int = 1
    """Of the page of results."""
    product: Product | None = None
    """Whose page is open."""
    sub: str = ""
    """Name of the sub page."""
    chosen: tuple[tuple[str, str], ...] = ()
    """Names and values of the options that were clicked."""
    seen: frozenset[str] = frozenset()
    """ASINs of the products that were opened since the start page."""


class WebShop:
    """One episode: actions in, pages out.

    A purchase ends it, whoever is to declare the end: both values of ``End`` are alike here.
    """

    __slots__ = ("_bought", "_goal", "_setting", "_shop", "state")

    def __init__(self, shop: Shop, goal: Goal, setting: Setting) -> None:
        """Prepare an episode; ``reset`` begins it."""
        self._shop = shop
        self._goal = goal
        self._setting = setting
        self._bought: float | None = None
        self.state = State()

    def reset(self) -> str:
        """Start the episode and return the first observation."""
        return self._page()

    def step(self, action: str) -> Turn:
        """Carry out one action; no action, or one that is not possible on the page, leaves it as it is.

        Raises:
            RuntimeError: after the purchase.
        """
        if self._bought is not None:
            raise RuntimeError("this episode is over")
        parsed = parse_action(action)
        if parsed is None:  # at AgentGym's head an empty action is sent, and the bare page comes back
            return Turn(self._page(), valid=False)
        if parsed.name == "search":
            self._search(parsed.target)
        elif parsed.target == pages.BUY.lower() and self.state.place is Place.ITEM:
            return self._buy()
        elif not self._click(parsed.target):
            return Turn(self._page(), valid=False)
        return Turn(self._page())

    def outcome(self) -> Outcome:
        """Judge the episode as it stands; without a purchase the score is 0."""
        score = self._bought or 0.0
        return Outcome(score, score == 1.0, self._setting.definition)

    def fork(self) -> WebShop:
        """Return an independent copy in the same state."""
        return copy.copy(self)  # everything in it is immutable

    def shown(self) -> list[Product]:
        """Return the products on the page of results."""
        first = (self.state.number - 1) * self._setting.results_per_page
        places = self.state.results[first : first + self._setting.results_per_page]
        return [self._shop.product(place) for place in places]

    def _search(self, words: str) -> None:
        places = self._shop.index.search(words)
        self.state = State(Place.RESULTS, results=places, seen=self.state.seen)

    def _click(self, target: str) -> bool:
        """Follow a button, a link or an option; False where the page has none of that text."""
        state, place = self.state, self.state.place
        if target == pages.BACK.lower() and place is not Place.START:
            self.state = State()
        elif place is Place.RESULTS:
            return self._click_result(target)
        elif place is Place.ITEM:
            return self._click_item(target)
        elif target == pages.PREVIOUS.lower() and place is Place.SUB:
            self.state = replace(state, place=Place.ITEM, sub="")
        else:
            return False
        return True

    def _click_result(self, target: str) -> bool:
        state = self.state
        if target == pages.NEXT.lower():  # leads on behind the last result, too, as upstream
            self.state = replace(state, number=state.number + 1)
            return True
        if target == pages.PREVIOUS.lower() and state.number > 1:
            self.state = replace(state, number=state.number - 1)
            return True
        for product in self.shown():
            if product.asin.lower() == target:
                seen = state.seen | {product.asin}
                self.state = replace(state, place=Place.ITEM, product=product, seen=seen)
                return True
        return False

    def _click_item(self, target: str) -> bool:
        state = self.state
        if target == pages.PREVIOUS.lower():
            self.state = replace(state, place=Place.RESULTS, product=None, chosen=())
            return True
        for name in self._setting.sub_pages:
            if name.lower() == target:
                self.state = replace(state, place=Place.SUB, sub=name)
                return True
        assert state.product is not None
        for option in reversed(state.product.options):  # of two with the same value, the later, as upstream
            if target in option.values:
                chosen = dict(state.chosen) | {option.name: target}
                self.state = replace(state, chosen=tuple(chosen.items()))
                return True
        return False

    def _buy(self) -> Turn:
        product, chosen = self.state.product, dict(self.state.chosen)
        assert product is not None
        parts = purchase_reward(
            product,
            tuple(chosen.values()),
            self._goal.request,
            rule=self._setting.reward,
            nouns=noun_finder(self._setting.nouns),
        )
        self._bought = parts.reward
        page = pages.done_page(product.asin, chosen, parts.reward)
        return Turn(self._render(page), reward=parts.reward, stop=StopReason.DECLARED)

    def _page(self) -> str:
        state, instruction = self.state, self._goal.instruction
        if state.place is Place.START:
            return self._render(pages.start_page(instruction))
        if state.place is Place.RESULTS:
            total = len(state.results)
            page = pages.results_page(instruction, self.shown(), number=state.number, total=total)
            return self._render(page)
        assert state.product is not None
        if state.place is Place.ITEM:
            item = pages.item_page(instruction, state.product, attributes=self._setting.show_attributes)
            return self._render(item)
        return self._render(pages.sub_page(instruction, state.product, state.sub))

    def _render(self, pieces: list[pages.Piece]) -> str:
        if self._setting.observations == "text":
            return pages.as_text(pieces)
        return pages.as_rich_text(pieces, chosen=dict(self.state.chosen), seen=self.state.seen)
