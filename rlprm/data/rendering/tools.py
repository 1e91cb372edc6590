"""Tools in a chat template: how a model is shown tools, writes a call, and is given the answer.

The pieces around an answer are cut with probes, as those around an observation are. A call in the agent's
message is text between markers that only the template may write. The model's own syntax is read with the
response template that the tokenizer carries, or with the one that TRL ships for a known chat template.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from types import SimpleNamespace
from typing import Any

from rlprm.data.encodable import encodable, encodable_values
from rlprm.data.rendering.control import Encoder, Part
from rlprm.data.rendering.cutting import Pieces
from rlprm.data.rendering.template import Template
from rlprm.data.thoughts import CLOSE, OPEN
from rlprm.errors import ChatTemplateError, ConfigError, first_line
from rlprm.types import Message, Tool, ToolCall

__all__ = ["ToolSyntax", "around_observations", "tool_syntax"]

_SETTING = "action_format: got tool_call, allowed: a text format for this model, because"
_USER, _SAID, _ARGUMENT, _ANSWER = "a-probe-start", "a-probe-word", "a-probe-argument", "a-probe-answer"
_NO_THOUGHT = re.compile(rf"\A\s*(?:{OPEN})?\s*{CLOSE}\n*")
_HARD = 'x <b>"q"</b>\ny'
"""What templates that quote an answer would write otherwise."""


def _as_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


@dataclass(frozen=True)
class ToolSyntax:
    """How one template writes and reads calls of some tools.

    Attributes:
        tools: that the model may call.
        template: renders messages with the tools.
        pieces: of the template without tools.
        encoder: of the tokenizer.
        response: the response template, see ``tokenizer.parse_response``.
        written: how the template writes the text of an answer.
        before: what the template writes between a call's closing token and the answer.
    """

    tools: tuple[Tool, ...]
    template: Template
    pieces: Pieces
    encoder: Encoder
    response: Mapping[str, Any]
    written: Callable[[str], str] = str
    before: str = ""

    def around(self, roles: Sequence[str], before: Sequence[Message] = ()) -> list[str]:
        """Return what stands before, between and behind observations that follow a call.

        Args:
            roles: of the observations: ``tool`` or ``user``.
            before: messages before the newest one of the agent.

        Raises:
            ChatTemplateError: if the template does not take them, or writes none of them.
        """
        calls = [self._call(_ARGUMENT) for _ in range(max(1, roles.count("tool")))]
        literals = around_observations(
            self.template, self.pieces, roles, [*before, _reply(_SAID, calls)], _ARGUMENT
        )
        # Some templates quote an answer: the quotes belong to its text.
        quotes = self.written("")
        half = len(quotes) // 2
        for i, role in enumerate(roles):
            if role == "tool" and quotes:
                literals[i] = literals[i].removesuffix(quotes[:half])
                literals[i + 1] = literals[i + 1].removeprefix(quotes[half:])
        return literals

    def answer(self, role: str, text: str) -> str:
        """Return the text of an observation as the template writes it."""
        return self.written(text) if role == "tool" else self.pieces.observation(text)

    def message_parts(self, content: str, calls: Sequence[ToolCall]) -> list[Part]:
        """Return the parts of a message with calls, without a thought and without the closing token.

        Values that are texts are content: they never become control tokens. Control text elsewhere in a call
        (in a list, a key, a name) is refused, because the template writes these parts as its own.

        Raises:
            ChatTemplateError: if the template does not write the calls.
        """
        if any(self.encoder.controls(self.encoder.raw(text)) for text in _inner_texts(calls)):
            raise ChatTemplateError("a call holds control text outside of its arguments that are texts")
        values = {
            (i, name): value
            for i, call in enumerate(calls)
            for name, value in call["arguments"].items()
            if isinstance(value, str)
        }
        keys = list(values)
        stands = {key: f"{_ARGUMENT}-{number}" for number, key in enumerate(keys)}

        def body(real: tuple[int, str] | None, said: str) -> str:
            filled = [
                ToolCall(
                    name=call["name"],
                    arguments={
                        name: values[i, name] if (i, name) == real else stands.get((i, name), value)
                        for name, value in call["arguments"].items()
                    },
                )
                for i, call in enumerate(calls)
            ]
            return self._body(said, filled)

        frame = body(None, _SAID if content.strip() else "")
        literals, rest = [], frame
        for stand in ([_SAID] if content.strip() else []) + [stands[key] for key in keys]:
            if rest.count(stand) != 1:
                raise ChatTemplateError("the chat template drops, repeats or moves the arguments of calls")
            literal, rest = rest.split(stand)
            literals.append(literal)
        contents = [content] if content.strip() else []
        for key in keys:
            before, after = frame.split(stands[key])
            text = body(key, _SAID if content.strip() else "")
            if not (text.startswith(before) and text.endswith(after)):
                raise ChatTemplateError("the chat template changes with the arguments of calls")
            contents.append(text[len(before) : len(text) - len(after)])
        parts = []
        for literal, text in zip(literals, contents, strict=True):
            parts += [Part(literal, is_template=True), Part(text)]
        parts.append(Part(rest, is_template=True))
        self._require_readable(parts, content, calls)
        return parts

    def _require_readable(self, parts: Sequence[Part], content: str, calls: Sequence[ToolCall]) -> None:
        """Refuse a message that would be read otherwise, as LFM2's is with an apostrophe in an argument."""
        try:
            found = self.read(self.pieces.prefix + "".join(part.text for part in parts))
        except ValueError as error:
            raise ChatTemplateError(f"its own calls cannot be read: {error}") from error
        if (found[0].strip(), found[1]) != (content.strip(), list(calls)):
            raise ChatTemplateError(
                "its own calls are read otherwise than they are written: " + json.dumps(list(calls))[:100]
            )

    def _body(self, content: str, calls: Sequence[ToolCall]) -> str:
        """Return a message up to its closing token, without what stands for a thought."""
        messages = [_message("user", _USER), _reply(content, calls)]
        start = self.template.render(messages[:1])
        # Followed by an answer: some templates write the end of a last message otherwise.
        answers = [_message("tool", f"{_ANSWER}-{i}") for i in range(len(calls))]
        text = self.template.render([*messages, *answers], generate=False).split(f"{_ANSWER}-0")[0]
        written = text[len(start) :] if text.startswith(start) else _behind(text, start)
        written, found, _ = written.rpartition(self.pieces.closing + self.before)
        if not found:
            raise ChatTemplateError("the chat template does not end every message with calls alike")
        return _NO_THOUGHT.sub("", written)

    def read(self, text: str) -> tuple[str, list[ToolCall]]:
        """Return the content of a message without its thought, and its calls.

        Args:
            text: of the whole message, without the closing token.

        Raises:
            ValueError: if the message holds a call that cannot be read.
        """
        try:
            found = self.template.tokenizer.parse_response(
                text + self.pieces.closing,
                dict(self.response),
                prefix=self._prompt,
                tools=[tool.schema() for tool in self.tools],
            )
        except Exception as error:  # a parser of what a model wrote: it may raise anything
            raise ValueError(first_line(error)) from error
        calls = []
        for call in found.get("tool_calls") or ():
            function = call.get("function") if isinstance(call, dict) else None
            name, arguments = (function or {}).get("name"), (function or {}).get("arguments")
            if not isinstance(name, str) or not isinstance(arguments, dict):
                raise ValueError("a call needs a name and arguments")
            calls.append(ToolCall(name=encodable(name), arguments=encodable_values(arguments)))
        content = found.get("content") or ""
        return content if isinstance(content, str) else "", calls

    @cached_property
    def _prompt(self) -> str:
        """What the template writes before a message of the agent; the same for every message that is read."""
        return self.template.render([_message("user", _USER)]).rpartition(_USER)[2]

    def _call(self, argument: str) -> ToolCall:
        tool = self.tools[0]
        return ToolCall(name=tool.name, arguments=dict.fromkeys(tool.parameters, argument))


def _inner_texts(calls: Sequence[ToolCall]) -> Iterator[str]:
    """Yield the texts of calls that a template writes in its own way: names, keys, containers."""
    for call in calls:
        yield call["name"]
        for name, value in call["arguments"].items():
            yield name
            if not isinstance(value, str):
                yield json.dumps(value, ensure_ascii=False)


def around_observations(
    template: Template, pieces: Pieces, roles: Sequence[str], before: Sequence[Message], last: str
) -> list[str]:
    """Return what a template writes before, between and behind observations, from the closing token on.

    Args:
        template: to render with.
        pieces: of the template.
        roles: of the observations.
        before: what the agent said before them.
        last: the last words of the agent.

    Raises:
        ChatTemplateError: if the template does not take the messages, or writes no closing token.
    """
    texts = [f"{_ANSWER}-{i}" for i in range(len(roles))]
    answers = [_message(role, text) for role, text in zip(roles, texts, strict=True)]
    rest = template.render([_message("user", _USER), *before, *answers])
    literals = []
    for text in texts:
        if rest.count(text) != 1:
            raise ChatTemplateError("the chat template drops or repeats observations")
        literal, rest = rest.split(text)
        literals.append(literal)
    _, closing, first = literals[0].rpartition(last)[2].partition(pieces.closing)
    if not closing:
        raise ChatTemplateError(f"the chat template does not close that message with {pieces.closing}")
    return [first, *literals[1:], rest + pieces.header]


def tool_syntax(template: Template, pieces: Pieces, encoder: Encoder, tools: Sequence[Tool]) -> ToolSyntax:
    """Find out how a template writes and reads calls.

    Args:
        template: of the tokenizer.
        pieces: of the template.
        encoder: of the tokenizer.
        tools: that the model may call.

    Raises:
        ConfigError: if the model has no known syntax of calls, or the template cannot be cut.
    """
    schemas = [tool.schema() for tool in tools]
    if encoder.controls(encoder.raw(json.dumps(schemas, ensure_ascii=False))):
        raise ConfigError(f"{_SETTING} the description of a tool holds one of its control tokens")
    response = _response_template(template)
    if response is None:
        raise ConfigError(
            f"{_SETTING} neither its tokenizer nor TRL says how it writes calls (response_template)"
        )
    bound = copy(template)
    bound.tools = schemas
    found = ToolSyntax(tuple(tools), bound, pieces, encoder, response)
    try:
        found = replace(found, written=_how_written(found))
        found = replace(found, before=found.around(["tool"])[0])
        _check(found)
    except ChatTemplateError as error:
        raise ConfigError(f"{_SETTING} {error}") from error
    return found


def _response_template(template: Template) -> Mapping[str, Any] | None:
    own: Mapping[str, Any] | None = getattr(template.tokenizer, "response_template", None)
    if own is not None:
        return own
    # Imported here: the library is large, and most runs have no tools.
    from trl.chat_template_utils import add_response_schema

    known = SimpleNamespace(chat_template=template.tokenizer.chat_template)
    try:
        add_response_schema(known)
    except ValueError:
        return None
    found: Mapping[str, Any] | None = getattr(known, "response_template", None)
    return found if found is not None and "tool_calls" in found.get("fields", {}) else None


def _how_written(syntax: ToolSyntax) -> Callable[[str], str]:
    """Return how the template writes the text of an answer: as it is, trimmed, or quoted."""
    first, last = syntax.around(["tool"])
    text = syntax.template.render(
        [
            _message("user", _USER),
            _reply(_SAID, [syntax._call(_ARGUMENT)]),
            _message("tool", f" {_HARD}\n"),
        ]
    )
    behind = text.rpartition(_ARGUMENT)[2]
    if _as_json(f" {_HARD}\n") in behind:
        return _as_json
    for written in (str, str.strip, str.lstrip, str.rstrip):
        around = first + written(f" {_HARD}\n") + last.removesuffix(syntax.pieces.header)
        if behind.endswith(around):
            return written
    raise ChatTemplateError("the chat template changes the answers of tools")


def _check(syntax: ToolSyntax) -> None:
    """Refuse a template that writes otherwise around an answer at a later turn, or cannot read its own call.

    Raises:
        ChatTemplateError: with the reason.
    """
    expected = syntax.around(["tool"])
    call, answer = syntax._call("an earlier argument"), _message("tool", "an earlier answer")
    for said in ("", "an earlier word"):
        if syntax.around(["tool"], [_reply(said, [call]), answer] * 2) != expected:
            raise ChatTemplateError("the chat template does not write the same around every answer of a tool")
    syntax.message_parts("", [syntax._call("red <b>, size 1")])


def _behind(text: str, start: str) -> str:
    """Return what follows the generation prompt, if the template writes another start of the message."""
    prompt = start.rpartition(_USER)[2]
    head = prompt.partition("<think>")[0]
    _, found, rest = text.partition(_USER)[2].partition(head)
    if not found:
        raise ChatTemplateError("the chat template starts a message with calls otherwise than its prompt")
    return rest


def _message(role: str, content: str) -> Message:
    return Message(role=role, content=content)


def _reply(content: str, calls: Sequence[ToolCall]) -> Message:
    return Message(role="assistant", content=content, tool_calls=list(calls))
