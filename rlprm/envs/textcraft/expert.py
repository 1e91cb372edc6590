"""Demonstrations: the shortest plan for a goal, by branch and bound over its recipe tree.

A plan gets each item without a recipe once, in the number needed in all, and crafts each
other item by one recipe as often as needed (a command makes what one crafting makes).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from rlprm.envs.textcraft.book import RecipeBook, Way
from rlprm.envs.textcraft.environment import make
from rlprm.envs.textcraft.goals import task_address
from rlprm.envs.textcraft.wording import FINISH
from rlprm.errors import DemonstrationError
from rlprm.types import End, Task

__all__ = ["ROUND_LIMIT", "demonstrate", "shortest_plan"]

ROUND_LIMIT = 20
"""Turns of an episode, AgentGym's number."""

_MOST_NODES = 20_000  # of a search; Minecraft's goals take fewer, a stranger book gets the best plan so far


def demonstrate(task: Task, *, end: End) -> list[str]:
    """Return the commands of the shortest plan, tried out in the environment.

    Args:
        task: What to solve.
        end: With ``End.DECLARED`` the last action is ``finish``, right after the goal is crafted.

    Raises:
        DemonstrationError: where the plan does not fit into the round limit.
    """
    book, goal, _ = task_address(task)
    actions = list(shortest_plan(book, goal))
    if end is End.DECLARED:
        actions.append(FINISH)
    if len(actions) > ROUND_LIMIT:
        raise DemonstrationError(f"{task.id}: the shortest plan has {len(actions)} actions")
    episode = make(task, end=end)
    episode.reset()
    turns = [episode.step(action) for action in actions[:-1]]
    if (
        any(turn.stop for turn in turns)
        or not episode.step(actions[-1]).stop
        or not episode.outcome().success
    ):
        raise DemonstrationError(f"{task.id}: the plan {actions} does not craft the goal")
    return actions


@functools.lru_cache(maxsize=4096)
def shortest_plan(book: RecipeBook, goal: str) -> tuple[str, ...]:
    """Return the fewest commands that craft a goal; among plans of the same length always the same one."""
    search = _Search(book)
    search.extend({goal: 1})
    order = search.best[::-1]  # ingredients before what is made of them
    made = {crafting.item for crafting in order}
    got: dict[str, int] = {}
    for crafting in order:
        for name, count in crafting.way.inputs:
            if name not in made:
                got[name] = got.get(name, 0) + count * crafting.times
    crafts = [command for crafting in order for command in _crafting_commands(crafting)]
    return (*(f"get {count} {name}" for name, count in got.items()), *crafts)


@dataclass(frozen=True)
class _Crafting:
    """A decision: how an item is made, and how often."""

    item: str
    way: Way
    times: int


class _Search:
    """Decides item after item how to make it, each before what it is made of."""

    def __init__(self, book: RecipeBook) -> None:
        self.best: tuple[_Crafting, ...] = ()
        self._fewest = float("inf")
        self._nodes = 0
        self._book = book
        self._ways: dict[str, list[Way]] = {}
        self._alone: dict[str, int] = {}

    def extend(self, needed: dict[str, int], decided: tuple[_Crafting, ...] = (), spent: int = 0) -> None:
        """Complete a plan in every way that can be shorter than the best so far.

        Args:
            needed: Items and counts that are still to be made.
            decided: What was decided before, the goal first.
            spent: Number of commands of these decisions.
        """
        self._nodes += 1
        if spent + self._at_least(needed) >= self._fewest or (self.best and self._nodes > _MOST_NODES):
            return
        item = max(needed, key=lambda name: (self._book.rank[name], name))
        if self._book.rank[item] == 0:  # only things to get are left
            self.best, self._fewest = decided, spent + len(needed)
            return
        others = {name: count for name, count in needed.items() if name != item}
        ways = self._ways_of(item)
        for way in sorted(ways, key=lambda way: self._cost(way, others)):  # stable, so the same every time
            times = _times(needed[item], way)
            more = dict(others)
            for name, count in way.inputs:
                more[name] = more.get(name, 0) + count * times
            self.extend(more, (*decided, _Crafting(item, way, times)), spent + times)

    def _at_least(self, needed: dict[str, int]) -> int:
        return sum(
            min((_times(count, way) for way in self._ways_of(name)), default=1)
            for name, count in needed.items()
        )

    def _cost(self, way: Way, others: dict[str, int]) -> int:
        """Guess how many commands a way takes beside those for other items."""
        return sum(self._cost_alone(name) for name, _ in way.inputs if name not in others)

    def _cost_alone(self, item: str) -> int:
        if item not in self._alone:
            self._alone[item] = 1 + min((self._cost(way, {}) for way in self._ways_of(item)), default=0)
        return self._alone[item]

    def _ways_of(self, item: str) -> list[Way]:
        if item not in self._ways:
            self._ways[item] = self._book.ways(item)
        return self._ways[item]


def _times(count: int, way: Way) -> int:
    return -(-count // way.count)


def _crafting_commands(crafting: _Crafting) -> list[str]:
    inputs = ", ".join(f"{count} {name}" for name, count in crafting.way.inputs)
    return [f"craft {crafting.way.count} {crafting.item} using {inputs}"] * crafting.times
