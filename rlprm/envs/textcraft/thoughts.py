"""Short thoughts for the expert's commands: what each command is for, and how often.

A plan counts: an item is needed a number of times in a number of craftings. A thought writes the count down
before the command that depends on it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rlprm.types import Task

__all__ = ["explain"]

_CRAFT = re.compile(r"craft \d+ (?P<item>.+?) using (?P<inputs>.+)")
_INPUT = re.compile(r"(\d+) ([^,]+)")
_GET = re.compile(r"get (?P<count>\d+) (?P<item>.+)")


@dataclass(frozen=True)
class _Craft:
    item: str
    inputs: dict[str, int]


def explain(task: Task, actions: Sequence[str]) -> list[str]:
    """Return one sentence for each of the expert's actions; see ``rlprm.envs.base``."""
    crafts = [_craft(action) for action in actions]
    return [_thought(at, actions[at], crafts) for at in range(len(actions))]


def _thought(at: int, action: str, crafts: Sequence[_Craft | None]) -> str:
    craft = crafts[at]
    if craft is None:
        found = _GET.fullmatch(action)
        return _why_get(found["item"], int(found["count"]), crafts) if found else "The goal is crafted."
    same = [i for i, other in enumerate(crafts) if other == craft]
    if at > same[0]:
        return f"Once more, {same.index(at) + 1} of {len(same)}."
    for_what = next((c.item for c in crafts[at:] if c is not None and craft.item in c.inputs), None)
    return f"I have what {craft.item} takes, {'the goal' if for_what is None else f'for {for_what}'}."


def _why_get(item: str, count: int, crafts: Sequence[_Craft | None]) -> str:
    uses = [craft for craft in crafts if craft is not None and item in craft.inputs]
    first = uses[0]  # a plan gets nothing that it does not use
    if any(craft != first for craft in uses):
        return f"{first.item} and more take {count} in all."
    times = f", {len(uses)} times: {count}" if len(uses) > 1 else ""
    return f"{first.item} takes {first.inputs[item]}{times}."


def _craft(action: str) -> _Craft | None:
    found = _CRAFT.fullmatch(action)
    if found is None:
        return None
    return _Craft(found["item"], {item: int(count) for count, item in _INPUT.findall(found["inputs"])})
