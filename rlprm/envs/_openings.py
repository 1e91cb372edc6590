"""The exchange that precedes the first observation, in the styles every environment offers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rlprm.errors import ConfigError
from rlprm.types import End, Message

AGENTGYM_ACKNOWLEDGEMENT = "OK. I'll follow your instructions and try my best to solve the task."


@dataclass(frozen=True)
class Instructions:
    """What the agent is told in one style."""

    text: str
    finish: str
    """Added where the agent has to declare the end."""
    reply_format: str = ""
    acknowledgement: str = "OK."
    """The reply put into the agent's mouth."""


def opening(styles: Mapping[str, Instructions], *, end: End, style: str) -> list[Message]:
    """Return the messages of a style; ``"none"`` has none.

    Raises:
        ConfigError: for a style the environment does not have.
    """
    if style == "none":
        return []
    if style not in styles:
        raise ConfigError(f"unknown opening style {style!r}; known: none, {', '.join(styles)}")
    chosen = styles[style]
    finish = chosen.finish if end is End.DECLARED else ""
    return [
        {"role": "user", "content": chosen.text + finish + chosen.reply_format},
        {"role": "assistant", "content": chosen.acknowledgement},
    ]
