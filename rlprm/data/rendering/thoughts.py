"""How a chat template writes a thought: the markers around it, as texts and as tokens.

A thought is part of the agent's message and stands before the action. Only templates that mark thoughts with
``<think>`` and ``</think>`` are read. The channels of gpt-oss are written for the model, which does not
think then.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rlprm.data.rendering.control import Encoder
from rlprm.data.rendering.cutting import BARE_END, Pieces
from rlprm.data.rendering.template import Template
from rlprm.data.thoughts import CLOSE, OPEN
from rlprm.errors import ChatTemplateError
from rlprm.types import Message

__all__ = ["Thoughts", "thoughts_of"]

_USER, _THOUGHT, _REPLY = "a-probe-start", "a-probe-thought", "a-probe-reply"
_KEYS = ("reasoning_content", "reasoning", "thinking")
"""What templates call the thought of a message."""


@dataclass(frozen=True)
class Thoughts:
    r"""What stands around a thought in the agent's message.

    Attributes:
        before: text that the agent writes before a thought, such as ``"<think>\n"``; empty if the generation
            prompt has opened the thought.
        after: text between a thought and the action, such as ``"\n</think>\n\n"``.
        opened: whether the generation prompt ends within a thought.
        open_id: the token ``<think>``; None if the vocabulary has none.
        close_id: the token ``</think>``.
        end_ids: tokens of ``after``.
    """

    before: str
    after: str
    opened: bool
    open_id: int | None
    close_id: int
    end_ids: tuple[int, ...]

    def tokens_of(self, message_ids: Sequence[int], blank: Collection[int]) -> range | None:
        """Return where the thought stands in the ids of a message, without its markers; None without one.

        Args:
            message_ids: of one message of the agent.
            blank: tokens of white space, which may stand before the opening marker.
        """
        start = 0
        if not self.opened:
            start = next((i for i, token in enumerate(message_ids) if token not in blank), len(message_ids))
            if start == len(message_ids) or message_ids[start] != self.open_id:
                return None
            start += 1
        ends = (i for i in range(start, len(message_ids)) if message_ids[i] == self.close_id)
        return range(start, next(ends, len(message_ids)))


def thoughts_of(template: Template, pieces: Pieces, encoder: Encoder) -> Thoughts | str:
    """Find out how a template writes thoughts.

    Returns:
        What stands around a thought, or the reason for which there is none.
    """
    if CLOSE not in template.source:
        return "the chat template does not think"
    start = template.render([_user()])
    prompt = start.split(_USER)[1]
    if CLOSE in prompt:
        return "the generation prompt of the chat template, with these settings, ends the thought"
    close = encoder.raw(CLOSE)
    if len(close) != 1:
        return f"{CLOSE}, which closes a thought, is no token of this vocabulary"
    before, after = _around(template, start, opened=pieces.opens_thought)
    opened = pieces.opens_thought
    open_ids = encoder.raw(OPEN)
    if not opened and len(open_ids) != 1:
        return f"{OPEN}, which opens a thought, is no token of this vocabulary"
    return Thoughts(
        before=before,
        after=after,
        opened=opened,
        open_id=open_ids[0] if len(open_ids) == 1 else None,
        close_id=close[0],
        end_ids=tuple(encoder.raw(after)),
    )


def _around(template: Template, start: str, *, opened: bool) -> tuple[str, str]:
    """Return what the template writes before and behind a thought; a common form if it shows none.

    A template shows its form if it renders a thought that is given apart from the text, or within the text.
    """
    head = "" if opened else f"{OPEN}\n"
    apart = [{**_reply(_REPLY), key: _THOUGHT} for key in _KEYS]
    for reply in (*apart, _reply(f"{OPEN}\n{_THOUGHT}{BARE_END}{_REPLY}")):
        try:
            text = template.render([_user(), reply], generate=False)  # type: ignore[list-item]
        except ChatTemplateError:
            continue
        if text.startswith(start) and [text.count(_THOUGHT), text.count(_REPLY)] == [1, 1]:
            before, rest = text[len(start) :].split(_THOUGHT)
            after = rest.split(_REPLY)[0]
            if (OPEN in before) != opened and CLOSE not in before and after.count(CLOSE) == 1:
                return before, after
    return head, BARE_END


def _user() -> Message:
    return Message(role="user", content=_USER)


def _reply(text: str) -> Message:
    return Message(role="assistant", content=text)
