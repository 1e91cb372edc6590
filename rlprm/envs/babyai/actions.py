"""The text actions: which there are in a state, what they expand to, and why others fail."""

from __future__ import annotations

import re
from typing import Any

from rlprm.envs.babyai.view import AHEAD, Seen, View, find_routes
from rlprm.envs.babyai.wording import CHECK, FINISH
from rlprm.envs.babyai.world import DROP, FORWARD, LEFT, PICKUP, RIGHT, TOGGLE

__all__ = ["Options", "find_options", "normalize"]

_DROPPED = re.compile(r"[^A-Za-z0-9,\s]+")


def normalize(action: str) -> str:
    """Bring an action text into the form of the action list.

    Characters outside ``[A-Za-z0-9, ]`` are dropped and white space is folded,
    as AgentGym does; letter case is ignored. ``pick up`` is an accepted spelling of ``pickup``.
    """
    text = " ".join(_DROPPED.sub("", action).lower().split())
    return "pickup " + text[8:] if text.startswith("pick up ") else text


class Options:
    """The actions of one state.

    Attributes:
        actions: Primitive actions by available action text, in the order of the list
            that the agent is shown.
        refusals: Answers to actions that make sense but cannot be done here.
    """

    __slots__ = ("actions", "refusals")

    def __init__(self) -> None:
        """Start without any action."""
        self.actions: dict[str, list[int]] = {}
        self.refusals: dict[str, str] = {}


def find_options(view: View, carrying: Any, *, declared: bool) -> Options:
    """Return what can be done in a state.

    An object is numbered as in the description. (AgentGym counts only the
    reachable ones in "go to" and "pickup", so its numbers can disagree with its text.)

    Args:
        view: What the agent sees.
        carrying: What it carries, or None.
        declared: Whether ``finish`` is an action.
    """
    options = Options()
    actions, refusals = options.actions, options.refusals
    actions["turn left"] = [LEFT]
    actions["turn right"] = [RIGHT]
    if view.barrier is None or view.barrier[1] > 1:
        actions["move forward"] = [FORWARD]
    else:
        refusals["move forward"] = "There is a barrier in front of you, you can't move forward."
    routes = find_routes(view.blocked)
    ways = [(seen, routes.facing(seen.cell)) for seen in view.things]
    if carrying is None:
        refusals["drop"] = "You cannot drop the object, as you are not carrying anything."
        for seen, way in ways:
            if seen.kind not in ("door", "goal"):
                _offer(options, "pickup", seen, None if way is None else [*way, PICKUP])
    elif view.blocked >> AHEAD & 1:
        refusals["drop"] = "You cannot drop the object, as there is already an object in front of you."
    else:
        actions["drop"] = [DROP]
    for seen, way in ways:
        if seen.kind == "door":
            _offer_door(options, seen, way, routes.onto(seen.cell), carrying)
    for seen in view.things:
        if seen.kind == "goal":
            onto = routes.onto(seen.cell)
            if onto is None:
                refusals["go to goal"] = "You cannot go to the goal, as there is no path leading to it."
            else:
                actions["go to goal"] = onto
    for seen, way in ways:
        if seen.kind != "goal":
            _offer(options, "go to", seen, way)
    if declared:
        actions[FINISH] = []
    actions[CHECK] = []
    return options


def _offer(options: Options, verb: str, seen: Seen, primitives: list[int] | None) -> None:
    action = f"{verb} {seen.name} {seen.number}"
    if primitives is None:
        options.refusals[action] = f"You cannot {action}, as there is no path leading to it."
    else:
        options.actions[action] = primitives


def _offer_door(
    options: Options, seen: Seen, way: list[int] | None, onto: list[int] | None, carrying: Any
) -> None:
    colour, state, _ = seen.name.split()
    if state == "open":
        _offer(options, "go through", seen, onto)
        return
    through = f"go through {seen.name} {seen.number}"
    if state == "closed":
        options.refusals[through] = f"You cannot {through}, as it is closed. You should toggle it first."
    else:
        obstacle = _lock_refusal(colour, carrying)
        if obstacle:
            options.refusals[f"toggle and {through}"] = f"You cannot toggle and {through}, {obstacle}"
            return
    _offer(options, "toggle and go through", seen, None if way is None else [*way, TOGGLE, FORWARD])
    if way == []:
        options.actions["toggle"] = [TOGGLE]


def _lock_refusal(colour: str, carrying: Any) -> str:
    if carrying is None or carrying.type != "key":
        return "as you are not carrying a key."
    if carrying.color != colour:
        return "as the color of the key you are carrying does not match the color of door."
    return ""
