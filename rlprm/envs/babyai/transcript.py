"""A rule that reads off the texts of an episode whether its mission is fulfilled.

The rule follows the observations: the named object is right in front of the agent, is newly carried, was
dropped next to the other one, or the named door was toggled. The rule does not use hidden state, so it errs
where the texts are silent: on "the ball on your left" it takes any ball, and it does not see what a macro
action passes on its way.

The mission is fulfilled by the last action that changed anything (``end: declared``). Later actions that show
the same scene therefore leave the verdict as it is, and all others revoke it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from rlprm.envs.babyai.actions import normalize

__all__ = ["read_transcript"]

_GOAL = re.compile(r"Your goal: (.*)\n")
_PLACE_AT_START = re.compile(r" (?:in front of you|behind you|on your left|on your right)\b")
_THING = re.compile(
    r"There is a ([a-z ]+) \d+ (?:right in front of you (\d+) steps away"
    r"|(\d+) steps in front of you and (\d+) steps to your (left|right))"
)
_CARRIED = re.compile(r"You are carrying a ([a-z ]+)\.")
_BESIDE_AHEAD = {(2, 0), (1, -1), (1, 1)}
"""Steps ahead and to the right: the cells next to the one right in front of the agent, its own left out."""


class _Scene(NamedTuple):
    text: str
    things: Sequence[tuple[str, tuple[int, int]]]
    """Name, and steps ahead and to the right."""
    carried: str


def read_transcript(start: str, turns: Sequence[tuple[str, str]]) -> list[float]:
    """Return the share of the mission that is fulfilled after each turn, 1 for all of it.

    Parts of a mission ("A, and B") count in any order. Only the last one has to be fulfilled by the last
    action that changed anything. See :meth:`rlprm.envs.base.EnvironmentModule.read_transcript`.
    """
    goal = _GOAL.search(start)
    parts = set(re.split(r",? and ", _PLACE_AT_START.sub("", goal[1]))) if goal else set()
    scene, done, believed, verdicts = _scene(start), set[str](), 0.0, []
    for action, answer in turns:
        new = _scene(answer)
        if parts and new.text and new.text != scene.text:
            now = {part for part in parts if _fulfils(part, normalize(action), scene, new)}
            done |= now
            believed = (len(done) - (len(done) == len(parts) and not now)) / len(parts)
            scene = new
        verdicts.append(believed)
    return verdicts


def _fulfils(part: str, action: str, before: _Scene, now: _Scene) -> bool:
    """Whether an action that led from one scene to another fulfilled one part of a mission."""
    ahead = [name for name, place in now.things if place == (1, 0)]
    if part.startswith("go to "):
        return any(_is(part[6:], name) for name in ahead)
    if part.startswith("pick up "):
        return now.carried != before.carried and _is(part[8:], now.carried)
    if part.startswith("open "):
        through = re.match(r"toggle and go through (.*) \d+", action)
        opened = [through[1]] if through else [name for name in ahead if " open " in name]
        return action.startswith("toggle") and any(_is(part[5:], name) for name in opened)
    moved, _, fixed = part.removeprefix("put ").partition(" next to ")
    beside = [name for name, place in now.things if place in _BESIDE_AHEAD]
    return action == "drop" and _is(moved, before.carried) and any(_is(fixed, name) for name in beside)


def _is(description: str, name: str) -> bool:
    """Whether an object's name has all words of a description such as ``the red ball`` or ``an object``."""
    words = set(description.split()) - {"the", "a", "an", "object"}
    return bool(name) and words <= set(name.split())


def _scene(observation: str) -> _Scene:
    """Read what an observation shows; the text is empty for an answer that is no view."""
    text = re.sub(r"\AYour goal: .*\n|\nAvailable actions: .*", "", observation)
    if "The room has walls around you." not in text:
        return _Scene("", [], "")
    things = [
        (name, (int(straight), 0) if straight else (int(ahead), int(aside) * (1 if side == "right" else -1)))
        for name, straight, ahead, aside, side in _THING.findall(text)
    ]
    carried = _CARRIED.search(text)
    return _Scene(text, things, carried[1] if carried else "")
