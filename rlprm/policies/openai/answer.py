"""The answer of a chat endpoint: the message, whether it was cut, and what it cost."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rlprm.data.encodable import encodable, encodable_values
from rlprm.data.rendering import ChatRenderer
from rlprm.data.thoughts import CLOSE, OPEN
from rlprm.policies.openai.thoughts import marked_thought
from rlprm.policies.server.client import BadAnswerError, RequestFailedError
from rlprm.types import Message, ToolCall

__all__ = ["Answer", "Usage", "read_answer", "said_of"]

_ENDS = ("stop", "tool_calls", "function_call", "eos", "end_turn", "stop_sequence")
"""Reasons for which a message ended by itself; servers other than OpenAI's have names of their own."""
_CUT = ("length", "max_tokens")
_REASONING = ("reasoning_content", "reasoning")
"""What endpoints call the thought of a message."""


@dataclass(frozen=True)
class Usage:
    """Tokens of one request, as the endpoint counts them."""

    prompt: int
    completion: int
    """Those of thoughts included, shown or not."""
    cached: int = 0
    """Of the prompt, those that the endpoint had read before."""

    @property
    def fed(self) -> int:
        """Tokens read or written: prompt plus completion minus cached."""
        return self.prompt + self.completion - self.cached


@dataclass(frozen=True)
class Answer:
    """One message of the agent, as an endpoint gave it."""

    content: str
    thought: str | None
    """Given apart from the content; None without one."""
    calls: tuple[ToolCall, ...]
    is_cut: bool
    usage: Usage | None
    """None if the endpoint does not say."""
    model: str
    """That the endpoint says it answered with; empty if it does not say."""


def read_answer(answer: Any, quote: Callable[..., str]) -> Answer:
    """Check an answer and return the message.

    Args:
        answer: the JSON of the endpoint.
        quote: makes printable what the endpoint said.

    Raises:
        BadAnswerError: if there is no message, for a reason that may pass.
        RequestFailedError: if the endpoint refuses this conversation.
    """
    if not isinstance(answer, dict):
        raise BadAnswerError("the answer is no object")
    if answer.get("error"):
        raise BadAnswerError(f"the answer is an error: {quote(json.dumps(answer['error']))}")
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices:
        raise BadAnswerError("the answer has no message (no choices)")
    choice = choices[0]
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise BadAnswerError("the answer has no message")
    reason = choice.get("finish_reason")
    if reason == "content_filter":
        raise RequestFailedError("the endpoint's filter held the message back (content_filter)")
    if message.get("refusal"):
        raise RequestFailedError(f"the endpoint refused: {quote(str(message['refusal']))}")
    if reason not in _ENDS and reason not in _CUT:
        raise BadAnswerError(f"the message was not finished: {quote(str(reason), 40)}")
    content = message.get("content")
    if content is not None and not isinstance(content, str):
        raise BadAnswerError("the message's content is no text")
    thoughts = [message[key] for key in _REASONING if isinstance(message.get(key), str) and message[key]]
    written, calls = _calls(message.get("tool_calls"))
    model = answer.get("model")
    return Answer(
        content=encodable("\n".join(part for part in (content, *written) if part)),
        thought=encodable(thoughts[0]) if thoughts else None,
        calls=tuple(calls),
        is_cut=reason in _CUT,
        usage=_usage(answer.get("usage")),
        model=quote(model, 80) if isinstance(model, str) else "",
    )


def _calls(given: Any) -> tuple[list[str], list[ToolCall]]:
    """Return the calls of a message; if one cannot be read, all of them as text."""
    if not isinstance(given, list) or not given:
        return [], []
    calls = []
    for entry in given:
        function = entry.get("function") if isinstance(entry, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        try:
            arguments = json.loads(function.get("arguments") or "{}") if isinstance(function, dict) else None
        except (ValueError, TypeError, RecursionError):
            arguments = None
        if not isinstance(name, str) or not isinstance(arguments, dict):
            return [json.dumps(given, ensure_ascii=False)], []
        calls.append(ToolCall(name=encodable(name), arguments=encodable_values(arguments)))
    return [], calls


def _usage(given: Any) -> Usage | None:
    try:
        prompt, completion = given["prompt_tokens"], given["completion_tokens"]
        cached = (given.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    except (KeyError, TypeError, AttributeError):
        return None
    counts = (prompt, completion, cached)
    if any(type(count) is not int or count < 0 for count in counts) or cached > prompt:
        return None
    return Usage(*counts)


def said_of(answer: Answer, renderer: ChatRenderer) -> tuple[Message, list[int]]:
    """Return a message as it is stored, and its token ids.

    A thought is kept if the named tokenizer's template has markers for thoughts, and dropped otherwise. The
    closing token is not among the ids of a message that was cut.

    Args:
        answer: of the endpoint.
        renderer: of the named tokenizer; with tools if the episode has some.

    Raises:
        ChatTemplateError: if the template cannot write the message.
    """
    thought, content, is_closed = _thought_of(answer, renderer)
    said = Message(role="assistant", content=content)
    if thought is not None and renderer.marks_thoughts:
        said["thought"] = thought
    if answer.calls and renderer.tools is not None:
        said["tool_calls"] = list(answer.calls)
    if "thought" in said and not is_closed:
        ids = renderer.message_ids(said, is_closed=False)
        said = Message(role="assistant", content=f"{OPEN}\n{said['thought']}")  # as sampled ones are stored
    else:
        ids = renderer.message_ids(said)
    return said, ids[:-1] if answer.is_cut else ids


def _thought_of(answer: Answer, renderer: ChatRenderer) -> tuple[str | None, str, bool]:
    """Return the thought, the rest, and whether the thought came to an end."""
    content = answer.content
    if answer.thought is not None:
        return answer.thought, content, bool(content or answer.calls) or not answer.is_cut
    thought, rest = marked_thought(content, renderer)
    return thought, rest, thought is None or CLOSE in content
