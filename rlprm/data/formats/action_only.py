"""The message is the action."""

from __future__ import annotations

from rlprm.data.formats.base import Parsed

__all__ = ["parse", "write"]


def parse(text: str) -> Parsed:
    """Read the whole message, without white space around it."""
    return Parsed(text.strip())


def write(action: str) -> str:
    """Write nothing but the action."""
    return action
