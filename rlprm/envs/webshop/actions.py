"""Reading actions: ``search[words]`` and ``click[target]``."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Action", "parse_action"]

_SEARCH = re.compile(r"(.+)\[(.+)\]")  # upstream's: the name is all before the last bracket
_CLICK = re.compile(r"(click)\[(.+)\]", re.IGNORECASE)
_END_OF_TEXT = "</s>"


class Action(NamedTuple):
    """One action."""

    name: str
    """``"search"`` or ``"click"``."""
    target: str
    """Lower case."""


def parse_action(text: str) -> Action | None:
    """Read an action out of what the agent wrote, as AgentGym's client does; None where there is none.

    It is what follows the last ``Action:``, or the whole text. Unlike upstream's, the target of a click may
    hold brackets itself (some option values do), and the case of the name does not matter.
    """
    written = text.strip().removesuffix(_END_OF_TEXT).rpartition("Action:")[2].strip()
    action = _CLICK.match(written) or _SEARCH.match(written)
    if action is None or action[1].lower() not in ("search", "click"):
        return None
    return Action(action[1].lower(), action[2].lower())
