"""The text actions: which there are in a state, what they expand to, and why others fail."""

from __future__ import annotations

import re
from typing import Any

from rlprm.envs.babyai.routes import Routes, find_routes, find_server_routes
from rlprm.envs.babyai.rules import Rules
from rlprm.envs.babyai.view import AHEAD, Seen, View
from rlprm.envs.babyai.wording import CHECK, FINISH
from rlprm.envs.babyai.world import DROP, FORWARD, LEFT, PICKUP, RIGHT, TOGGLE

__all__ = ["Options", "find_options", "normalize"]

_DROPPED = re.compile(r"[^A-Za-z0-9,\s]+")


def normalize(action: str, rules: Rules = Rules.FIXED) -> str:
    """Bring an action text into the form of the action list.

    Characters outside ``[A-Za-z0-9, ]`` are dropped and white space is folded, as AgentGym's client does.
    Letter case is ignored. ``pick up`` is a spelling of ``pickup`` under the fixed rules only: AgentGym's
    instructions say "pick up", and its server does not recognise it.
    """
    text = " ".join(_DROPPED.sub("", action).lower().split())
    return "pickup " + text[8:] if rules is Rules.FIXED and text.startswith("pick up ") else text


class Options:
    """The actions of one state.

    Attributes:
        actions: Primitive actions by available action text, in the order of the list
            that the agent is shown.
        refusals: Answers to actions that make sense but cannot be done here.
        texts: Text of the available action by verb and cell of the view.
    """

    __slots__ = ("actions", "refusals", "texts")

    def __init__(self) -> None:
        """Start without any action."""
        self.actions: dict[str, list[int]] = {}
        self.refusals: dict[str, str] = {}
        self.texts: dict[tuple[str, int], str] = {}

    def offer(
        self, verb: str, seen: Seen, number: int, primitives: list[int] | None, shown: str = ""
    ) -> None:
        """Add an action on an object, or the answer if no way leads to the object.

        Args:
            verb: Of the action.
            seen: The object.
            number: Of the object, in the text of the action.
            primitives: What the action expands to; None if there is no way.
            shown: What the answer shows in place of the number, if not the number.
        """
        action = f"{verb} {seen.name} {number}"
        if primitives is not None:
            self.actions[action] = primitives
            self.texts[verb, seen.cell] = action
            return
        refused = f"{verb} {seen.name} {shown or number}"
        self.refusals[action] = f"You cannot {refused}, as there is no path leading to it."


def find_options(
    view: View, carrying: Any, *, declared: bool, rules: Rules = Rules.FIXED, direction: int = 0
) -> Options:
    """Return what can be done in a state.

    Under the fixed rules an object has one number, that of the description. AgentGym numbers those objects of
    a name that "go to" and "pickup" can reach among themselves, so its numbers can disagree with its text.

    Args:
        view: What the agent sees.
        carrying: What it carries, or None.
        declared: Whether ``finish`` is an action.
        rules: Whose search for ways, numbers and answers.
        direction: Of the agent, index of ``DIRECTIONS``; AgentGym's search depends on it.
    """
    options = Options()
    actions, refusals = options.actions, options.refusals
    is_fixed = rules is Rules.FIXED
    actions["turn left"] = [LEFT]
    actions["turn right"] = [RIGHT]
    if view.barrier is None or view.barrier[1] > 1:
        actions["move forward"] = [FORWARD]
    else:
        refusals["move forward"] = "There is a barrier in front of you, you can't move forward."
    routes = find_routes(view.blocked) if is_fixed else find_server_routes(view.blocked, direction)
    ways = [(seen, routes.facing(seen.cell)) for seen in view.things]
    if carrying is None:
        refusals["drop"] = "You cannot drop the object, as you are not carrying anything."
        for seen, way in ways:
            if seen.kind not in ("door", "goal"):
                number = seen.number if is_fixed else _first_free(options, "pickup", seen)
                options.offer("pickup", seen, number, None if way is None else [*way, PICKUP])
    elif view.blocked >> AHEAD & 1:
        refusals["drop"] = "You cannot drop the object, as there is already an object in front of you."
    else:
        actions["drop"] = [DROP]
    _offer_doors(options, ways, routes, carrying, is_fixed=is_fixed)
    for seen in view.things:
        if seen.kind == "goal":
            onto = routes.onto(seen.cell)
            if onto is None:
                refusals["go to goal"] = "You cannot go to the goal, as there is no path leading to it."
            else:
                actions["go to goal"] = onto
    for seen, way in ways:
        if seen.kind != "goal":
            number = seen.number if is_fixed else _first_free(options, "go to", seen)
            options.offer("go to", seen, number, way)
    if declared:
        actions[FINISH] = []
    actions[CHECK] = []
    return options


def _first_free(options: Options, verb: str, seen: Seen) -> int:
    """Return the first number that no reachable object of this name has."""
    number = 1
    while f"{verb} {seen.name} {number}" in options.actions:
        number += 1
    return number


def _offer_doors(
    options: Options,
    ways: list[tuple[Seen, list[int] | None]],
    routes: Routes,
    carrying: Any,
    *,
    is_fixed: bool,
) -> None:
    counts: dict[str, int] = {}
    for seen, way in ways:
        if seen.kind == "door":
            counts[seen.name] = seen.number
            # AgentGym's answer shows all of its counters so far in place of the number.
            shown = "" if is_fixed else str(counts)
            _offer_door(options, seen, way, routes.onto(seen.cell), carrying, shown)


def _offer_door(
    options: Options,
    seen: Seen,
    way: list[int] | None,
    onto: list[int] | None,
    carrying: Any,
    shown: str,
) -> None:
    colour, state, _ = seen.name.split()
    if state == "open":
        options.offer("go through", seen, seen.number, onto)
        return
    through = f"go through {seen.name} {seen.number}"
    if state == "closed":
        options.refusals[through] = f"You cannot {through}, as it is closed. You should toggle it first."
    else:
        obstacle = _lock_refusal(colour, carrying)
        if obstacle:
            options.refusals[f"toggle and {through}"] = f"You cannot toggle and {through}, {obstacle}"
            return
    primitives = None if way is None else [*way, TOGGLE, FORWARD]
    options.offer("toggle and go through", seen, seen.number, primitives, shown)
    if way == []:
        options.actions["toggle"] = [TOGGLE]


def _lock_refusal(colour: str, carrying: Any) -> str:
    if carrying is None or carrying.type != "key":
        return "as you are not carrying a key."
    if carrying.color != colour:
        return "as the color of the key you are carrying does not match the color of door."
    return ""
