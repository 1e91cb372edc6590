r"""How an agent writes its action into a message, and how the action is read out again.

``action_only``: the message is the action. ``react``: AgentGym's
``Thought:\n...\n\nAction:\n...``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from rlprm.errors import UnknownComponentError

TWO_ACTIONS = "Error: Only one 'Action' is allowed per response. Please adjust your response."
"""AgentGym's answer to a ReAct message with several actions; the environment is not asked."""

_REACT_ACTION = re.compile(r"Action:\s*(.*?)(?=\n|$)")


@dataclass(frozen=True)
class Parsed:
    """An action read from a message, or the answer to a message from which none can be read."""

    action: str
    refusal: str | None = None
    """If set, the observation to give instead of asking the environment."""


@dataclass(frozen=True)
class Format:
    """One way of writing actions."""

    name: str
    parse: Callable[[str], Parsed]
    """Message text → action."""
    write: Callable[[str], str]
    """Action → message text, for demonstrations."""


def _parse_action_only(text: str) -> Parsed:
    return Parsed(text.strip())


def _parse_react(text: str) -> Parsed:
    actions = _REACT_ACTION.findall(text)
    if len(actions) > 1:
        return Parsed("", refusal=TWO_ACTIONS)
    return Parsed(actions[0].strip() if actions else "")


def _write_react(action: str) -> str:
    return f"Thought:\nMy next action is: {action}.\n\nAction:\n{action}"


FORMATS = {
    "action_only": Format("action_only", _parse_action_only, str),
    "react": Format("react", _parse_react, _write_react),
}


def load_format(name: str) -> Format:
    """Return a format by name.

    Raises:
        UnknownComponentError: listing the formats there are.
    """
    try:
        return FORMATS[name]
    except KeyError:
        raise UnknownComponentError(f"unknown action format {name!r}; known: {', '.join(FORMATS)}") from None
