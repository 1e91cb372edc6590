"""The action is a call of a tool, in the model's own syntax.

A tool says which action a call stands for (``Tool.action``), and the same pattern turns the actions of
demonstrations into calls. The chat template knows the syntax (:mod:`rlprm.data.rendering.tools`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from string import Formatter
from typing import Any

from rlprm.data.formats.base import TWO_ACTIONS, Parsed
from rlprm.errors import ConfigError
from rlprm.types import Tool, ToolCall

__all__ = ["action_of", "call_of"]


def action_of(calls: Sequence[ToolCall], tools: Sequence[Tool]) -> Parsed:
    """Return the action that the calls of a message stand for; the refusals say what is wrong with a call."""
    if len(calls) > 1:
        return Parsed("", refusal=TWO_ACTIONS)
    if not calls:
        return Parsed("")
    name, arguments = calls[0]["name"], calls[0]["arguments"]
    tool = next((tool for tool in tools if tool.name == name), None)
    if tool is None:
        known = ", ".join(tool.name for tool in tools)
        return Parsed("", refusal=f"Error: There is no tool {name}. The tools are: {known}.")
    if set(arguments) != set(tool.parameters):
        return Parsed("", refusal=f"Error: The tool {name} takes: {', '.join(tool.parameters)}.")
    return Parsed(tool.action.format(**{key: _text(value) for key, value in arguments.items()}).strip())


def call_of(action: str, tools: Sequence[Tool]) -> ToolCall:
    """Return the call that stands for an action.

    Raises:
        ConfigError: if no tool can be called for it.
    """
    for tool in tools:
        if found := re.fullmatch(_pattern(tool), action, re.DOTALL):
            return ToolCall(name=tool.name, arguments=found.groupdict())
    raise ConfigError(f"action_format: got tool_call, but no tool of the environment stands for {action!r}")


def _pattern(tool: Tool) -> str:
    parts = Formatter().parse(tool.action)
    return "".join(re.escape(text) + (f"(?P<{name}>.*)" if name else "") for text, name, _, _ in parts)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
