"""Chat messages to token ids, piece by piece."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from copy import copy
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from rlprm.data.rendering import bounded
from rlprm.data.rendering.control import Encoder, Part
from rlprm.data.rendering.cutting import cut, probes, rewritten
from rlprm.data.rendering.identity import hash_of
from rlprm.data.rendering.prompts import Shape, Skeleton, parts_of, shape_of, skeleton_of
from rlprm.data.rendering.settings import stored_settings
from rlprm.data.rendering.template import Template
from rlprm.data.rendering.thoughts import Thoughts, thoughts_of
from rlprm.data.rendering.tools import ToolSyntax, around_observations, tool_syntax
from rlprm.data.thoughts import CLOSE, OPEN, split_thought, with_thought
from rlprm.errors import ChatTemplateError
from rlprm.types import Message, Tool

__all__ = ["ChatRenderer"]

STRICT = "strict"
_NEUTRAL = "x"
_PROBE_REPLY = Message(role="assistant", content="a-probe-reply")


class ChatRenderer:
    """Token ids of prompts, actions and observations under one tokenizer and its chat template.

    The tokenizer carries the template's settings (:mod:`rlprm.data.rendering.settings`). No control token
    comes from the text of a message (:mod:`rlprm.data.rendering.control`).

    Attributes:
        closing_id: the token that ends an assistant message (Qwen: ``<|im_end|>``).
        stop_ids: others a model may end its message with. They are sampled, and so stay among the ids; they
            are no part of the text, and the closing token follows as it does where a message was cut off.
        template_hash: identifies template and vocabulary; artifacts with different hashes do not mix.
        thinks: whether the template or the vocabulary has markers of thoughts.
        thoughts: what stands around a thought, or as a text the reason for which there is none.
        default_system: the system prompt that the template writes by itself; empty if there is none.
        date: the date that the template takes for today's; None if it asks for none.
        history: ``"append"`` or ``"strict"``.
        pieces: of the template, as texts.

    Raises:
        ChatTemplateError: if the tokenizer has no template, or one that cannot be cut into pieces.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._template = Template(tokenizer)
        if endless := bounded.refusal(self._template.source, self._template.variables, probes()):
            raise ChatTemplateError(f"the chat template does not come to an end: {endless}")
        self._encoder = Encoder(tokenizer)
        self.pieces = cut(self._template, self._leading_special_token, self._encoder.split)
        self.closing_id = self._single_token(self.pieces.closing)
        self.pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self.closing_id
        self.history = stored_settings(tokenizer).history or "append"
        if self.history == STRICT and (difference := self.rewrites):
            raise ChatTemplateError(
                f"history: got strict, but the chat template rewrites earlier turns; {difference}. "
                "With history append, turns stay as they were sampled"
            )
        self.template_hash = hash_of(tokenizer, self._template)
        self.stop_ids: frozenset[int] = frozenset()
        self.default_system = self.pieces.default_system
        self.date = self._template.date
        self.thinks = CLOSE in self._template.source or OPEN in tokenizer.get_added_vocab()
        self.thoughts: Thoughts | str = thoughts_of(self._template, self.pieces, self._encoder)
        self.tools: ToolSyntax | None = None
        self._with_tools: dict[str, ChatRenderer] = {}
        self._around: dict[tuple[str, ...], list[str]] = {}
        self._prompt_shapes: dict[Shape, tuple[Skeleton, list[int]]] = {}
        self._of_observation = self._controls_of(self._around_observation(_NEUTRAL))
        self._of_action = self._controls_of(self._around_action(_NEUTRAL))

    def stopping_at(self, ids: Collection[int]) -> ChatRenderer:
        """Return a renderer of messages that may end with any of these tokens, too."""
        other = copy(self)
        other.stop_ids = self.stop_ids | (set(ids) - {self.closing_id})
        other._with_tools = {}
        return self if other.stop_ids == self.stop_ids else other

    def forgetful_copy(self) -> ChatRenderer:
        """Return a renderer that keeps nothing of what this one has rendered.

        A renderer keeps the shapes of all prompts. A server, whose clients choose the prompts, must not.
        """
        other = copy(self)
        other._with_tools, other._around, other._prompt_shapes = {}, {}, {}
        return other

    def with_tools(self, tools: Sequence[Tool]) -> ChatRenderer:
        """Return a renderer that shows the model tools in its prompts.

        Raises:
            ConfigError: if the model has no known syntax of calls, or its template cannot be cut.
        """
        key = json.dumps([(tool.schema(), tool.action) for tool in tools])
        if key not in self._with_tools:
            other = self.forgetful_copy()
            other.tools = tool_syntax(self._template, self.pieces, self._encoder, tools)
            other._template = other.tools.template
            self._with_tools[key] = other
        return self._with_tools[key]

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Ids of everything up to the point where the assistant starts to write.

        Raises:
            ChatTemplateError: if the template refuses the messages or leaves a content out.
        """
        shape = shape_of(messages)
        if shape not in self._prompt_shapes:
            skeleton = skeleton_of(self._template, shape)
            neutral = [part for text in skeleton for part in (Part(text, is_template=True), Part(_NEUTRAL))]
            self._prompt_shapes[shape] = skeleton, self._controls_of([*neutral[:-1], self._header])
        skeleton, expected = self._prompt_shapes[shape]
        rendered = self._template.render(messages)
        ids = self._encoder.raw(rendered + self.pieces.header)
        if self._encoder.controls(ids) == expected:
            return ids
        parts, fits = parts_of(skeleton, messages, rendered, self.pieces.observation)
        texts = (part.text for part in parts if not part.is_template)
        if not fits and not any(self._encoder.controls(self._encoder.raw(text)) for text in texts):
            return ids  # the template's own answer to a content, such as a thought in an opening message
        return self._encoder.encode([*parts, self._header])

    def observation_ids(self, observation: str) -> list[int]:
        """Ids between an action's closing token (exclusive) and the start of the next action."""
        return self._encode(self._around_observation(observation), self._of_observation)

    def observations_ids(self, observations: Sequence[Message]) -> list[int]:
        """Ids between an action's closing token (exclusive) and the start of the next action.

        Args:
            observations: one or several, of the roles ``user`` and ``tool``. An answer of a tool follows a
                message with calls.

        Raises:
            ChatTemplateError: if the template does not take them.
        """
        roles = tuple(message["role"] for message in observations)
        if roles == ("user",):
            return self.observation_ids(observations[0]["content"])
        if roles not in self._around:
            self._around[roles] = (
                around_observations(
                    self._template, self.pieces, roles, [_PROBE_REPLY], _PROBE_REPLY["content"]
                )
                if self.tools is None
                else self.tools.around(roles)
            )
        first, *behind = self._around[roles]
        parts = [Part(first, is_template=True)]
        for message, literal in zip(observations, behind, strict=True):
            text = message["content"]
            written = (
                self.tools.answer(message["role"], text) if self.tools else self.pieces.observation(text)
            )
            parts += [Part(written), Part(literal, is_template=True)]
        return self._encoder.encode(parts)

    def message_ids(self, message: Message, *, is_closed: bool = True) -> list[int]:
        """Ids of a message of the agent given as text, closing token included.

        The markers of its thought and its calls get their tokens. What the texts hold is never control. If
        the template does not think, the markers of a thought are text, too.

        Args:
            message: of the agent.
            is_closed: whether its thought came to an end.

        Raises:
            ChatTemplateError: if the template ends the thought itself, or does not write the calls.
        """
        calls, content = message.get("tool_calls") or [], message["content"]
        if "thought" not in message and not calls:
            return self.action_ids(content)
        parts = self._thought_parts(message.get("thought"), is_closed)
        if not is_closed:
            return [*self._encoder.encode(parts), self.closing_id]
        if not calls:
            parts.append(Part(content))
        elif self.tools is None:
            raise ChatTemplateError("calls of tools cannot be written without the tools")
        else:
            parts += self.tools.message_parts(content, calls)
        return [*self._encoder.encode(parts), self.closing_id]

    def _thought_parts(self, thought: str | None, is_closed: bool) -> list[Part]:
        is_ended = CLOSE in self.pieces.after  # by the generation prompt
        if thought is None or (is_closed and not thought and (self.pieces.prefix or is_ended)):
            return [Part(self.pieces.prefix, is_template=True)]
        around = self.thoughts
        if isinstance(around, str):
            if is_ended:
                raise ChatTemplateError(f"a message has a thought, but {around}")
            return [Part(self.pieces.prefix, is_template=True), Part(with_thought(thought, ""))]
        end = [Part(around.after, is_template=True)] if is_closed else []
        return [Part(around.before, is_template=True), Part(thought), *end]

    def read_message(self, text: str) -> Message:
        """Return what the agent wrote as thought, calls and the rest.

        Args:
            text: of the message, without the closing token.

        Raises:
            ValueError: if the message holds a call that cannot be read.
        """
        rest = self.without_thought(text)
        if rest != text and CLOSE not in text:  # a thought that was cut has no markers of its own to keep
            return Message(role="assistant", content=text, tool_calls=[])
        content, calls = self.tools.read(text) if self.tools is not None else (rest, [])
        message = Message(role="assistant", content=content, tool_calls=calls)
        if rest != text:
            message["thought"] = split_thought(text, opened=self.pieces.opens_thought)[0]
        return message

    def action_ids(self, text: str) -> list[int]:
        """Ids of an action given as text (a demonstration), closing token included.

        If the generation prompt opens a thought, an empty thought is closed before the text.
        """
        return [*self._encode(self._around_action(text), self._of_action), self.closing_id]

    def action_text(self, ids: Sequence[int]) -> str:
        """Text of sampled action ids; the token that ended it and the closing token may be present."""
        body = ids[:-1] if ids and ids[-1] == self.closing_id else ids
        body = body[:-1] if body and body[-1] in self.stop_ids else body
        return str(self.tokenizer.decode(list(body), skip_special_tokens=False))

    @property
    def marks_thoughts(self) -> bool:
        """Whether thoughts have markers of their own, so that their tokens can be told from the action's."""
        return isinstance(self.thoughts, Thoughts)

    def thought_tokens(self, ids: Sequence[int]) -> range | None:
        """Return where the thought stands in the ids of a message, without its markers; None without one."""
        if isinstance(self.thoughts, str):
            return None
        return self.thoughts.tokens_of(ids, self.blank_tokens)

    @cached_property
    def blank_tokens(self) -> frozenset[int]:
        """The tokens that are nothing but white space."""
        texts = self.tokenizer.batch_decode([[i] for i in range(len(self.tokenizer))])
        return frozenset(i for i, text in enumerate(texts) if not text.strip())

    def without_thought(self, text: str) -> str:
        """Return the part of a message's text that the action is read from."""
        if not self.thinks and not text.lstrip().startswith(OPEN):
            return text
        return split_thought(text, opened=self.pieces.opens_thought)[1]

    def record(self) -> dict[str, str]:
        """Return what a stage's record says about the template beside its hash; no empty entries."""
        entries = {
            "template": self.template_hash,
            "history": self.history,
            "default_system": self.default_system,
            "date": self.date or "",
        }
        return {name: value for name, value in entries.items() if value}

    @property
    def rewrites(self) -> str:
        """What a conversation, rendered whole, has in place of a piece; empty if they are the same."""
        return rewritten(self._template, self.pieces)

    @property
    def _header(self) -> Part:
        return Part(self.pieces.header, is_template=True)

    def _around_observation(self, text: str) -> list[Part]:
        pieces = self.pieces
        return [Part(pieces.before, True), Part(pieces.observation(text)), Part(pieces.after, True)]

    def _around_action(self, text: str) -> list[Part]:
        return [Part(self.pieces.prefix, is_template=True), Part(text)]

    def _encode(self, parts: Sequence[Part], expected: list[int]) -> list[int]:
        ids = self._encoder.raw("".join(part.text for part in parts))
        return ids if self._encoder.controls(ids) == expected else self._encoder.encode(parts)

    def _controls_of(self, parts: Sequence[Part]) -> list[int]:
        return self._encoder.controls(self._encoder.raw("".join(part.text for part in parts)))

    def _leading_special_token(self, text: str) -> str:
        added: list[str] = sorted(self.tokenizer.get_added_vocab(), key=len, reverse=True)
        for token in added:
            if text.startswith(token):
                return token
        raise ChatTemplateError(
            "the chat template does not close an assistant message with a special token; "
            f"what follows a reply is {text[:40]!r}"
        )

    def _single_token(self, text: str) -> int:
        ids = self._encoder.raw(text)
        if len(ids) != 1:
            raise ChatTemplateError(f"the closing token {text!r} encodes to {len(ids)} ids, expected 1")
        return ids[0]
