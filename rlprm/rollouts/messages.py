"""What a message of the agent stands for: text in an action format, or a call of a tool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from rlprm import envs
from rlprm.data.formats import TOOL_CALL, Format, Parsed, load_format
from rlprm.data.formats.tool_call import action_of
from rlprm.data.rendering import ChatRenderer
from rlprm.data.thoughts import OPEN, split_thought
from rlprm.types import EpisodeSetting, Message, Task, Tool

__all__ = ["MessageReader", "message_reader"]

_UNREADABLE = "Error: The call of a tool could not be read."


class MessageReader(Protocol):
    """Reads the messages of one episode."""

    @property
    def renderer(self) -> ChatRenderer:
        """Shows the model its tools, if it calls some."""
        ...

    def read(self, text: str) -> tuple[Parsed, Message]:
        """Return the action of a message, and the message as it is stored."""
        ...

    def read_said(self, message: Message) -> tuple[Parsed, Message]:
        """Return the same for a message that was not given as tokens: its thought and calls are apart."""
        ...


@dataclass(frozen=True)
class _TextReader:
    renderer: ChatRenderer
    format: Format

    def read(self, text: str) -> tuple[Parsed, Message]:
        parsed = self.format.parse(self.renderer.without_thought(text))
        return parsed, Message(role="assistant", content=text)

    def read_said(self, message: Message) -> tuple[Parsed, Message]:
        return self.format.parse(_without_cut_thought(message)), message


@dataclass(frozen=True)
class _CallReader:
    renderer: ChatRenderer
    tools: tuple[Tool, ...]

    def read(self, text: str) -> tuple[Parsed, Message]:
        try:
            message = self.renderer.read_message(text)
        except ValueError:
            return Parsed("", refusal=_UNREADABLE), Message(role="assistant", content=text, tool_calls=[])
        return action_of(message["tool_calls"], self.tools), message

    def read_said(self, message: Message) -> tuple[Parsed, Message]:
        calls = message.get("tool_calls", [])
        return action_of(calls, self.tools), {**message, "tool_calls": calls}


def _without_cut_thought(message: Message) -> str:
    """Return the content, empty if it is nothing but a thought that was cut."""
    content = message["content"]
    return split_thought(content)[1] if content.startswith(OPEN) else content


def message_reader(task: Task, setting: EpisodeSetting, renderer: ChatRenderer) -> MessageReader:
    """Return what reads the messages of a model in an episode.

    Raises:
        ConfigError: if actions are calls, and the environment has no tools or the model no known syntax.
        UnknownComponentError: for an unknown action format.
    """
    if setting.action_format != TOOL_CALL:
        return _TextReader(renderer, load_format(setting.action_format))
    tools = envs.tools_of(envs.of_task(task), task.environment, setting.end)
    return _CallReader(renderer.with_tools(tools), tools)
