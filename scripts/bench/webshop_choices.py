"""How hard choosing is in the generated WebShop: what simple rules buy, without any training.

    python scripts/bench/webshop_choices.py                      # about two minutes on one core
    python scripts/bench/webshop_choices.py --attributes hidden --results_per_page 8 --tasks 100

The first part counts the goals for which a rule of one line buys the right product with all options right.
The second part plays a shopper with slips 16 times a task: one sample, the best of 16 by the outcome, and the
best of 16 by the scorer ``transcript``.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Sequence

from rlprm.envs import webshop
from rlprm.envs.webshop.expert import ROUND_LIMIT, query_of
from rlprm.envs.webshop.goal import Goal
from rlprm.envs.webshop.reward import Request, option_met, purchase_reward
from rlprm.envs.webshop.search.analyzer import terms
from rlprm.envs.webshop.shop.generated_goals import ASKED_ATTRIBUTES
from rlprm.envs.webshop.tasks import shop_and_goal
from rlprm.envs.webshop.title_nouns import by_rules
from rlprm.envs.webshop.transcript import read_transcript
from rlprm.errors import DemonstrationError
from rlprm.types import End, Split, Task

SAMPLES = 16
FIRST_OF_MANY = 5


def offered(product: webshop.Product, request: Request) -> list[str]:
    """The values to click for the options that are asked for, of those that the product has."""
    values = [value for option in product.options for value in option.values]
    fitting = (
        [v for v in values if option_met(name, wanted, [v], rule="fixed")] for name, wanted in request.options
    )
    return [found[0] for found in fitting if found]


def is_right(product: webshop.Product, chosen: Sequence[str], request: Request) -> bool:
    return purchase_reward(product, chosen, request, rule="fixed", nouns=by_rules).reward == 1.0


def rules(tasks: Sequence[Task], per_page: int, draw: random.Random) -> Counter[str]:
    """How many goals each rule solves."""
    solved: Counter[str] = Counter()
    for task in tasks:
        shop, goal = shop_and_goal(task)
        wanted = goal.request
        results = [shop.product(place) for place in shop.index.search(query_of(goal.instruction))]
        cheap = [product for product in results if product.price <= wanted.price_cap]
        complete = [product for product in cheap if len(offered(product, wanted)) == len(wanted.options)]
        bought = {
            "the first result": results[:1],
            "the first result under the cap": cheap[:1],
            "the first result under the cap with all options": complete[:1],
            "a random one of the first five under the cap": draw.sample(cheap[:FIRST_OF_MANY], 1)
            if cheap
            else [],
        }
        for name, products in bought.items():
            solved[name] += any(is_right(product, offered(product, wanted), wanted) for product in products)
        own = [draw.choice(option.values) for option in wanted.product.options]
        solved["the goal's product, random options"] += is_right(wanted.product, own, wanted)
        right_on_page = any(is_right(p, offered(p, wanted), wanted) for p in results[:per_page])
        solved["a right product is on the first page"] += right_on_page
        try:
            webshop.demonstrate(task, end=End.DECLARED)
            solved["the shopper that demonstrates"] += 1
        except DemonstrationError:
            pass
    return solved


class Shopper:
    """Shops like the demonstrations, with slips: random results, random options, misses overlooked."""

    def __init__(self, task: Task, goal: Goal, slip: float, draw: random.Random) -> None:
        self.env = webshop.make(task, end=End.DECLARED)
        self.start = self.env.reset()
        self.turns: list[tuple[str, str]] = []
        self.wanted, self.query = goal.request, query_of(goal.instruction)
        self.slip, self.draw = slip, draw

    def slips(self) -> bool:
        """Draw whether something goes wrong."""
        return self.draw.random() < self.slip

    def do(self, action: str) -> None:
        """Carry out an action, if a round is left."""
        if len(self.turns) < ROUND_LIMIT:
            turn = self.env.step(action)
            self.turns.append((action, "" if turn.stop else turn.observation))

    def shop(self) -> tuple[bool, float]:
        """Whether the purchase succeeds, and what the transcript scorer makes of the episode."""
        self.do(f"search[{self.query}]")
        refused: set[str] = set()
        while len(self.turns) < ROUND_LIMIT and self.turns[-1][1]:
            product = self._result(refused)
            if product is None:
                self.do("click[Next >]")
                continue
            self.do(f"click[{product.asin}]")
            if self._is_refused(product):
                refused.add(product.asin)
                self.do("click[< Prev]")
                continue
            values = [value for option in product.options for value in option.values]
            for value in offered(product, self.wanted):
                self.do(f"click[{self.draw.choice(values) if self.slips() else value}]")
            self.do("click[Buy Now]")
        return self.env.outcome().success, read_transcript(self.start, self.turns)[-1]

    def _result(self, refused: set[str]) -> webshop.Product | None:
        shown, words = self.env.shown(), set(terms(self.query))
        if shown and self.slips():
            return self.draw.choice(shown)
        fitting = [p for p in shown if p.price <= self.wanted.price_cap and p.asin not in refused]
        return max(fitting, key=lambda p: min(3, len(words & set(terms(p.title)))), default=None)

    def _is_refused(self, product: webshop.Product) -> bool:
        choices = len(offered(product, self.wanted))
        if choices < len(self.wanted.options):
            return not self.slips()
        if self._names_all(product.title) or len(self.turns) + 3 + choices > ROUND_LIMIT:
            return False
        self.do("click[Features]")
        self.do("click[< Prev]")
        return not self._names_all(" ".join((product.title, *product.bullets))) and not self.slips()

    def _names_all(self, text: str) -> bool:
        return all(set(terms(text)).issuperset(terms(attribute)) for attribute in self.wanted.attributes)


def slipping(tasks: Sequence[Task], slip: float, draw: random.Random) -> tuple[float, float, float]:
    """Shares of success: one sample, the best of 16 by the outcome, the best of 16 by ``transcript``."""
    one = best = read = 0.0
    for task in tasks:
        goal = shop_and_goal(task)[1]
        episodes = [Shopper(task, goal, slip, draw).shop() for _ in range(SAMPLES)]
        top = max(verdict for _, verdict in episodes)
        chosen = [success for success, verdict in episodes if verdict == top]
        one += sum(success for success, _ in episodes) / SAMPLES
        best += any(success for success, _ in episodes)
        read += sum(chosen) / len(chosen)
    return one / len(tasks), best / len(tasks), read / len(tasks)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--attributes", nargs="+", default=list(ASKED_ATTRIBUTES), choices=ASKED_ATTRIBUTES)
    parser.add_argument("--categories", nargs="+", default=None)
    parser.add_argument("--results_per_page", type=int, default=10)
    parser.add_argument(
        "--tasks", type=int, default=800, help="dev tasks of the first part; a quarter plays on"
    )
    parser.add_argument("--slips", nargs="+", type=float, default=[0.1, 0.25])
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    for attributes in given.attributes:
        draw = random.Random(given.seed)
        kwargs = {"attributes": attributes, "results_per_page": given.results_per_page}
        tasks = webshop.tasks(Split.DEV, 0, given.tasks, categories=given.categories, **kwargs)
        print(f"attributes: {attributes}, {given.results_per_page} results a page, {len(tasks)} dev tasks")
        for name, count in rules(tasks, given.results_per_page, draw).items():
            print(f"  {name:50} {count / len(tasks):6.1%}")
        played = tasks[: max(1, len(tasks) // 4)]
        for slip in given.slips:
            one, best, read = slipping(played, slip, draw)
            print(f"  slips {slip:.0%}, {len(played)} tasks: one sample {one:.1%}, best of {SAMPLES} by")
            print(f"    the outcome {best:.1%}, by transcript {read:.1%}")


if __name__ == "__main__":
    main()
