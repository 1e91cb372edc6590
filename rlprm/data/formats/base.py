"""What an action format is, and what several formats share."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["LINE_START", "TWO_ACTIONS", "Format", "Parsed", "without_continuation", "write_react"]

TWO_ACTIONS = "Error: Only one 'Action' is allowed per response. Please adjust your response."
"""AgentGym's answer to a message with several actions; the environment is not asked."""

LINE_START = r"\s*+(?:[>#•+*-]+\s+)*+(?:\d{1,3}[.)]\s+)?"
"""Pattern of what Markdown puts in front of a line: quotes, headings, bullets, a number."""

_OBSERVATION = re.compile(
    LINE_START + r"[*_`]{0,3}observation(?:\s?[#(\[]?\d{1,4}[)\]]?)?+[*_`]{0,3}+(?!\s*[\w,'’])", re.IGNORECASE
)


@dataclass(frozen=True)
class Parsed:
    """An action read from a message, or the answer to a message from which none can be read."""

    action: str
    """Empty if the message holds no action."""
    refusal: str | None = None
    """If set, the observation to give instead of asking the environment. ``TWO_ACTIONS`` is counted as
    several actions, any other as no action (``rlprm.data.message_counts``)."""


@dataclass(frozen=True)
class Format:
    """One way of writing actions: the two functions of a module of this package."""

    name: str
    parse: Callable[[str], Parsed]
    """Message text → action. Never raises."""
    write: Callable[..., str]
    """Action → message text, for demonstrations. ``parse`` reads the same action out of that text. A format
    that has a place for thoughts takes ``thought`` as a second argument."""

    @property
    def holds_thoughts(self) -> bool:
        """Whether a message has a place for a thought."""
        return "thought" in inspect.signature(self.write).parameters


def write_react(action: str, thought: str = "") -> str:
    """Write an action as AgentGym's demonstrations do: a thought, then ``Action:``."""
    return f"Thought:\n{thought or f'My next action is: {action}.'}\n\nAction:\n{action}"


def without_continuation(text: str) -> str:
    """Return a message up to the observation that the model invented, or the whole message.

    An invented observation begins with the first line that is headed "Observation" (any case, also numbered
    or in Markdown) and has text before it. A message that opens with an observation repeats the last one.
    "Observation shows that ..." is a sentence, not a heading.
    """
    lines = text.split("\n")
    has_text = False
    for number, line in enumerate(lines):
        if has_text and _OBSERVATION.match(line):
            return "\n".join(lines[:number])
        has_text = has_text or bool(line.strip())
    return text
