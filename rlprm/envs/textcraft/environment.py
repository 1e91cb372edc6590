"""One episode of TextCraft as text."""

from __future__ import annotations

import copy
import re

from rlprm.envs.textcraft import wording
from rlprm.envs.textcraft.book import RecipeBook
from rlprm.envs.textcraft.goals import commands, task_address
from rlprm.types import End, Outcome, StopReason, Task, Turn

__all__ = ["TextCraft", "make", "normalize"]

_DEFINITIONS = {
    End.ON_SUCCESS: "textcraft: goal crafted",
    End.DECLARED: "textcraft: goal crafted at any time before the end",
}

_DROPPED = re.compile(r"[^A-Za-z0-9,\s]+")
_CRAFT = re.compile(r"craft (.*) using (.*)")
_GET = re.compile(r"get ([0-9]+) (.*)")
_COUNTED = re.compile(r"([0-9]+) (.*)")
_MOST_DIGITS = 1000  # of a count; from 4,301 digits on Python writes no number


def make(task: Task, *, end: End) -> TextCraft:
    """Build the environment of a task (and, the first time in a process, its recipe book).

    Raises:
        ConfigError: if the task is not one of this environment.
    """
    return TextCraft(*task_address(task), end=End(end))


def normalize(action: str) -> str:
    """Bring an action into the form of the commands, as AgentGym's client does.

    The client drops special characters and takes "look", in any letter case, for "inventory". All other
    commands and items have to be in lower case.
    """
    folded = " ".join(_DROPPED.sub("", action).split())
    return wording.INVENTORY if folded.lower() == wording.LOOK else folded


class TextCraft:
    """One episode: commands in, answers out.

    docs/environments.md lists the differences from AgentGym's server.
    """

    __slots__ = ("_achieved", "_book", "_declared", "_goal", "_held", "_seed", "_stopped")

    def __init__(self, book: RecipeBook, goal: str, seed: int, *, end: End) -> None:
        """Prepare an episode; ``reset`` begins it."""
        self._book = book
        self._goal = goal
        self._seed = seed
        self._declared = end is End.DECLARED
        self._held: dict[str, int] = {}
        self._achieved = False
        self._stopped = False

    def reset(self) -> str:
        """Start the episode and return the first observation."""
        shown = commands(self._book, self._goal, self._seed)
        return wording.first_observation(shown, self._goal, declared=self._declared)

    def step(self, action: str) -> Turn:
        """Carry out one command; an unknown or impossible one is answered and changes nothing.

        Raises:
            RuntimeError: after the end of the episode.
        """
        if self._stopped:
            raise RuntimeError("this episode is over")
        command = normalize(action)
        if match := _CRAFT.match(command):
            turn = self._craft(match[1], match[2])
            if self._achieved and not self._declared:
                return self._end(StopReason.SUCCESS, turn.observation)
            return turn
        if match := _GET.match(command):
            return self._get(match[1], match[2])
        if command.startswith(wording.INVENTORY):
            return Turn(wording.inventory(self._held))
        if command.lower() == wording.FINISH and self._declared:
            return self._end(StopReason.DECLARED, wording.FINISHED)
        return _refused(f"Could not execute {wording.shortened(command)}")

    def outcome(self) -> Outcome:
        """Judge the episode as it stands."""
        end = End.DECLARED if self._declared else End.ON_SUCCESS
        return Outcome(float(self._achieved), self._achieved, _DEFINITIONS[end])

    def fork(self) -> TextCraft:
        """Return an independent copy in the same state."""
        other = copy.copy(self)
        other._held = self._held.copy()
        return other

    def _get(self, digits: str, item: str) -> Turn:
        if self._book.depth.get(item) != 0 or len(digits) > _MOST_DIGITS:
            return _refused(f"Could not find {wording.shortened(item)}")
        count = int(digits)
        self._held[item] = self._held.get(item, 0) + count  # 0 is held and shown, too, as in AgentGym
        return Turn(f"Got {count} {item}")

    def _craft(self, output: str, listed: str) -> Turn:
        counted = _COUNTED.match(output)  # the number asked for has no effect
        item = counted[2] if counted else output
        inputs = []
        needed: dict[str, int] = {}
        for entry in listed.split(","):
            match = _COUNTED.match(entry.strip())
            if match is None:
                return _refused(f"Wrong item format: {wording.shortened(entry.strip())}")
            name, count = match[2], int(match[1][: _MOST_DIGITS + 1])
            inputs.append((name, count))
            needed[name] = needed.get(name, 0) + count
        held = self._held
        if any(name not in held or held[name] < count for name, count in inputs):
            return _refused(f"Could not find enough items to craft {_identifier(item)}")
        made = self._book.made.get((item, tuple(sorted(inputs))))
        if made is None:
            return _refused(f"Could not find a valid recipe for {_identifier(item)}")
        if any(held[name] < count for name, count in needed.items()):  # in AgentGym less than nothing is left
            return _refused(f"Could not find enough items to craft {_identifier(item)}")
        for name, count in needed.items():
            held[name] -= count
            if not held[name]:
                del held[name]
        held[item] = held.get(item, 0) + made
        self._achieved = self._achieved or item == self._goal
        return Turn(f"Crafted {made} {_identifier(item)}")

    def _end(self, stop: StopReason, answer: str) -> Turn:
        self._stopped = True
        return Turn(answer, reward=float(self._achieved), stop=stop)


def _refused(answer: str) -> Turn:
    return Turn(answer, valid=False)


def _identifier(item: str) -> str:
    return "minecraft:" + wording.shortened(item).replace(" ", "_")
