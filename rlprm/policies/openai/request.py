"""The request to a chat endpoint: a conversation's messages as the API has them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rlprm.data.rendering import ChatRenderer
from rlprm.policies.openai.thoughts import marked_thought
from rlprm.types import Message, ToolCall

__all__ = ["LIMITS", "PATH", "chat_messages", "seed_of"]

PATH = "/chat/completions"
LIMITS = ("max_tokens", "max_completion_tokens")
"""Names of the length limit: the older one, which servers of one's own know, and that of newer models."""


def seed_of(seed: int) -> int:
    """Return a seed as every endpoint takes one: 31 bits. Larger whole numbers are no exact JSON numbers."""
    return seed % (1 << 31)


def chat_messages(messages: Sequence[Message], renderer: ChatRenderer) -> list[dict[str, Any]]:
    """Return the messages of a conversation in the form of the API.

    Thoughts are not sent. Every call gets an answer, as the API demands: if the environment gave one answer
    to a message of several calls, all of them get it.

    Args:
        messages: of the conversation.
        renderer: knows which part of a text is a thought.
    """
    found: list[dict[str, Any]] = []
    open_calls: list[str] = []
    for number, message in enumerate(messages):
        role, content = message["role"], message["content"]
        if role != "tool":
            open_calls = _close(found, open_calls)
        if role == "assistant":
            calls = message.get("tool_calls") or []
            own: dict[str, Any] = {"role": role, "content": _without_thought(message, renderer)}
            if calls:
                open_calls = [f"call_{number}_{i}" for i in range(len(calls))]
                own["content"] = own["content"] or None
                own["tool_calls"] = [_call(call, id_) for call, id_ in zip(calls, open_calls, strict=True)]
            found.append(own)
        elif role == "tool" and open_calls:
            found.append({"role": role, "tool_call_id": open_calls.pop(0), "content": content})
        else:
            found.append({"role": "user" if role == "tool" else role, "content": content})
    _close(found, open_calls)
    return found


def _close(found: list[dict[str, Any]], open_calls: Sequence[str]) -> list[str]:
    """Answer the calls that have none with the answer before."""
    answer = found[-1]["content"] if found and found[-1]["role"] == "tool" else ""
    found += [{"role": "tool", "tool_call_id": id_, "content": answer} for id_ in open_calls]
    return []


def _call(call: ToolCall, id_: str) -> dict[str, Any]:
    arguments = json.dumps(call["arguments"], ensure_ascii=False)
    return {"id": id_, "type": "function", "function": {"name": call["name"], "arguments": arguments}}


def _without_thought(message: Message, renderer: ChatRenderer) -> str:
    content = message["content"]
    return content if "thought" in message else marked_thought(content, renderer)[1]
