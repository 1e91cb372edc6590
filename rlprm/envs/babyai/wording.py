"""The words of the environment: observations, answers and instructions (AgentGym's wording)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rlprm.envs import _openings
from rlprm.envs._instructions import BABYAI
from rlprm.envs.babyai.view import View, name_of, steps_to
from rlprm.envs.babyai.world import VIEW
from rlprm.types import End, Message, Tool

__all__ = [
    "CHECK",
    "COMPLETED",
    "FAILED",
    "FINISH",
    "FINISHED",
    "FIXED_PHRASES",
    "NOTHING_HAPPENED",
    "NOT_RECOGNIZED",
    "action_list",
    "describe",
    "goal_line",
    "opening",
    "possible_actions",
    "tools",
]

CHECK = "check available actions"
FINISH = "finish"
COMPLETED = "\n The task is completed."
FAILED = "\n The task has failed."
FINISHED = "You have finished."
NOTHING_HAPPENED = "No change in state."
NOT_RECOGNIZED = "The action is not recognized. Please check valid actions."


def goal_line(mission: str) -> str:
    """Return the first line of the first observation."""
    return f"Your goal: {mission.replace('then', 'and').replace('after you', 'and')}\n"


def describe(view: View, carrying: Any) -> str:
    """Describe what the agent sees and carries."""
    parts = []
    if view.things or view.sees_wall:
        parts.append("In front of you in this room, you can see several objects: ")
        parts += [f"There is a {seen.name} {seen.number} {_PLACE[seen.cell]} " for seen in view.things]
    else:
        parts.append("You cannot see any objects within sight.")
    parts.append("The room has walls around you. ")
    if view.barrier is not None:
        kind, steps = view.barrier
        parts.append(f"You are facing a {kind} {steps} steps away. ")
    if carrying is None:
        parts.append("You are not carrying anything.")
    else:
        parts.append(f"You are carrying a {name_of(carrying)}.")
    return "".join(parts)


def action_list(names: Iterable[str]) -> str:
    """Return the last line of every observation."""
    quoted = ", ".join(f'"{name}"' for name in names)
    return f"\nAvailable actions: [{quoted}]"


def possible_actions(names: Iterable[str]) -> str:
    """Return the answer to ``check available actions``."""
    return "You can take the following actions: " + ", ".join(names)


def _place(cell: int) -> str:
    ahead, right = steps_to(cell)
    if right == 0:
        return f"right in front of you {ahead} steps away. "
    side = "right" if right > 0 else "left"
    return f"{ahead} steps in front of you and {abs(right)} steps to your {side}. "


_PLACE = tuple(_place(cell) for cell in range(VIEW * VIEW))

FIXED_PHRASES: tuple[str, ...] = (
    # goals
    "Your goal: ",
    "go to the ",
    "go to a ",
    "pick up the ",
    "pick up a ",
    "open the ",
    "open a ",
    "put the ",
    "put a ",
    " next to the ",
    " next to a ",
    " in front of you",
    " behind you",
    " on your left",
    " on your right",
    ", and ",
    " and ",
    # observations
    "\nIn front of you in this room, you can see several objects: ",
    "In front of you in this room, you can see several objects: ",
    "You cannot see any objects within sight.",
    "There is a ",
    "right in front of you ",
    " steps away.  ",
    " steps in front of you and ",
    " steps to your left.  ",
    " steps to your right.  ",
    "The room has walls around you. ",
    "You are facing a ",
    " steps away. ",
    "You are not carrying anything.",
    "You are carrying a ",
    # the list of available actions
    '\nAvailable actions: ["turn left", "turn right", "',
    '", "',
    '", "move forward',
    '", "pickup ',
    '", "drop',
    '", "toggle',
    '", "go through ',
    '", "toggle and go through ',
    '", "go to ',
    '", "check available actions"]',
    '", "finish", "check available actions"]',
    # actions
    "turn left",
    "turn right",
    "move forward",
    "pickup ",
    "pick up ",
    "drop",
    "toggle",
    "go to ",
    "go through ",
    "toggle and go through ",
    CHECK,
    FINISH,
    # answers
    COMPLETED,
    FAILED,
    FINISHED,
    NOTHING_HAPPENED,
    NOT_RECOGNIZED,
    "You can take the following actions: ",
    ", ",
    "You cannot go to ",
    "You cannot pickup ",
    "You cannot go through ",
    "You cannot toggle and go through ",
    ", as there is no path leading to it.",
    ", as it is closed. You should toggle it first.",
    ", as you are not carrying a key.",
    ", as the color of the key you are carrying does not match the color of door.",
    "There is a barrier in front of you, you can't move forward.",
    "You cannot drop the object, as there is already an object in front of you.",
    "You cannot drop the object, as you are not carrying anything.",
)
"""Parts of the text without a colour, an object, a state or a number in them."""


def opening(*, end: End, style: str) -> list[Message]:
    """Return the messages that precede the first observation.

    Args:
        end: With ``End.DECLARED`` the instructions explain ``finish``.
        style: ``"none"``, ``"short"`` (answer with the bare action) or ``"agentgym"``
            (AgentGym's actions and its Thought/Action format).

    Raises:
        ConfigError: for another style.
    """
    return _openings.opening(BABYAI, end=end, style=style)


def tools(*, end: End) -> list[Tool]:
    """Return what a model may call; see :class:`rlprm.envs.base.EnvironmentModule`."""
    declared = " The action finish ends the episode." if end is End.DECLARED else ""
    return [
        Tool(
            "act",
            f"Take one of the available actions, which every observation lists.{declared}",
            {"action": "The action, word for word."},
            "{action}",
        )
    ]
