"""A tokenizer's chat template as a function from messages to text, with a fixed clock."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

from transformers import PreTrainedTokenizerBase

from rlprm.data.rendering.settings import CLOCK_STOPS_AT, stored_settings
from rlprm.errors import ChatTemplateError, first_line
from rlprm.types import Message

__all__ = ["Template"]

_CLOCK = "strftime_now"
_DIRECTIVES = "aAbBcdHIjmMpSuUVwWxXyYzZG"  # of strftime


class Template:
    """Renders messages with a tokenizer's chat template.

    Args:
        tokenizer: with a chat template. Its stored settings hold the template's variables and its date.

    Attributes:
        source: the template's text; if it asks for the date, with a clock that stands still.
        variables: what the template reads beside the messages.
        date: that the template takes for today's; None if it asks for none.
        tools: JSON schemas of the tools that the model may call; None if there are none.
        in_parts: whether contents are handed over as lists of parts, as templates for images expect them.

    Raises:
        ChatTemplateError: if the tokenizer has no template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.chat_template:
            raise ChatTemplateError(
                f"the tokenizer {tokenizer.name_or_path!r} has no chat template; "
                "set tokenizer.chat_template (an instruct model comes with one)"
            )
        settings = stored_settings(tokenizer)
        self.tokenizer = tokenizer
        self.source = tokenizer.get_chat_template()
        self.variables: dict[str, Any] = dict(settings.kwargs)
        self.date: str | None = None
        if _CLOCK in self.source:
            self.date = settings.date or CLOCK_STOPS_AT
            self.source = _stopped_clock(date.fromisoformat(self.date)) + self.source
        self.in_parts = False
        self.tools: list[dict[str, Any]] | None = None

    def render(self, messages: Sequence[Message], *, generate: bool = True) -> str:
        """Return the text of a conversation.

        Args:
            messages: of the conversation.
            generate: whether to add the generation prompt.

        Raises:
            ChatTemplateError: if the template refuses the messages or has a mistake.
        """
        try:
            text: str = self.tokenizer.apply_chat_template(
                [self._as_dict(message) for message in messages],
                tokenize=False,
                add_generation_prompt=generate,
                chat_template=self.source,
                **({} if self.tools is None else {"tools": self.tools}),
                **self.variables,
            )
        except Exception as error:  # a template is a program: it may raise anything
            reason = first_line(error)
            roles = ", ".join(message["role"] for message in messages)
            raise ChatTemplateError(f"the chat template fails on messages of {roles}: {reason}") from error
        return text

    def _as_dict(self, message: Message) -> dict[str, Any]:
        given: dict[str, Any] = dict(message)
        if self.in_parts:
            given["content"] = [{"type": "text", "text": message["content"]}]
        if "tool_calls" in message:
            calls = [{"type": "function", "function": dict(call)} for call in message["tool_calls"]]
            given["tool_calls"] = calls
        return given


def _stopped_clock(day: date) -> str:
    """Return a Jinja macro in place of the function that gives the date, which cannot be handed over."""
    replaced = "".join(f" | replace('%{d}', '{day.strftime(f'%{d}')}')" for d in _DIRECTIVES)
    # What follows must not be a block's end: the line break after one is cut off.
    return f"{{%- macro {_CLOCK}(format) -%}}{{{{- format{replaced} -}}}}{{%- endmacro %}}{{{{- '' }}}}"
