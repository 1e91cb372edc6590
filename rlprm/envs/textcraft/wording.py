"""The words of the environment: observations, answers and instructions (AgentGym's wording)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rlprm.envs import _openings
from rlprm.envs._instructions import TEXTCRAFT
from rlprm.types import End, Message, Tool

__all__ = [
    "FINISH",
    "FINISHED",
    "FINISH_LINE",
    "FIXED_PHRASES",
    "INVENTORY",
    "LOOK",
    "first_observation",
    "inventory",
    "opening",
    "shortened",
    "tools",
]

FINISH = "finish"
FINISHED = "You have finished."
INVENTORY = "inventory"
LOOK = "look"
FINISH_LINE = "\nNobody tells you when the goal is met: answer finish once it is."

_LONGEST_QUOTE = 200  # characters


def first_observation(commands: Iterable[str], goal: str, *, declared: bool) -> str:
    """Return the observation an episode starts with.

    With declared ends it tells of ``finish``: there is no list of actions, and without
    instructions (style ``"none"``) nothing else does.
    """
    listed = "\n".join(commands)
    return f"Crafting commands:\n{listed}\n\nGoal: craft {goal}." + (FINISH_LINE if declared else "")


def inventory(held: Mapping[str, int]) -> str:
    """Return the answer to ``inventory``."""
    if not held:
        return "Inventory: You are not carrying anything."
    return "Inventory: " + "".join(f"[{item}] ({count}) " for item, count in held.items())


def shortened(quote: str) -> str:
    """Return what an answer repeats of an action: all of it, but for absurd lengths."""
    return quote if len(quote) <= _LONGEST_QUOTE else quote[:_LONGEST_QUOTE] + "..."


FIXED_PHRASES: tuple[str, ...] = (
    # first observation
    "Crafting commands:\n",
    "\ncraft ",
    " using ",
    "\n\nGoal: craft ",
    FINISH_LINE,
    # actions
    INVENTORY,
    FINISH,
    # answers
    "Got ",
    "Crafted ",
    " minecraft:",
    "Inventory: [",
    "] (",
    ") [",
    ") ",
    "Inventory: You are not carrying anything.",
    "Could not find ",
    "Could not find enough items to craft minecraft:",
    "Could not find a valid recipe for minecraft:",
    "Could not execute ",
    "Wrong item format: ",
    FINISHED,
)
"""Parts of the text without an item or a number in them.

Without "get" and "craft", which are single words anyway and stand inside of items (nugget, crafting table).
"""


def opening(*, end: End, style: str) -> list[Message]:
    """Return the messages that precede the first observation.

    Args:
        end: With ``End.DECLARED`` the instructions explain ``finish``.
        style: ``"none"``, ``"short"`` (answer with the bare command) or ``"agentgym"``
            (AgentGym's Thought/Action format).

    Raises:
        ConfigError: for another style.
    """
    return _openings.opening(TEXTCRAFT, end=end, style=style)


def tools(*, end: End) -> list[Tool]:
    """Return what a model may call; see :class:`rlprm.envs.base.EnvironmentModule`."""
    declared = ", or finish once the goal is crafted" if end is End.DECLARED else ""
    return [
        Tool(
            "act",
            "Do one thing in the world: craft something with a given command, get an item that lies around, "
            f"look into the inventory{declared}.",
            {"action": "The action, such as: get 2 oak log, craft 4 oak planks using 1 oak log, inventory."},
            "{action}",
        )
    ]
