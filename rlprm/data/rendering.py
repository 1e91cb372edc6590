"""Chat messages to token ids, piece by piece.

This is the only module that knows how a chat template turns into tokens. A
conversation is built from pieces that are never encoded twice:

    prompt ids | action ids (sampled) | observation ids | action ids | ...

The pieces are cut from the tokenizer's own chat template, which must therefore
only ever append: a template that rewrites earlier turns (for instance one that
drops old thoughts) would make the tokens seen in training differ from the
tokens that were sampled, and is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from copy import copy

from transformers import PreTrainedTokenizerBase

from rlprm.errors import ChatTemplateError
from rlprm.types import Message

_USER, _REPLY = "a-probe-question", "a-probe-reply"
_PROBE_TEXT = "It's 3 steps to door 12,  isn't it? [\"go to red ball 1\"]\n\n\tCafé  $4.50: 7 x 8 = 56 \n"
_PROBE_REPLIES = ("first reply", "<think>\nan earlier thought\n</think>\n\nsecond reply", "third reply")


class ChatRenderer:
    """Token ids of prompts, actions and observations under one tokenizer and its chat template.

    Attributes:
        closing_id: the token that ends an assistant message (Qwen: ``<|im_end|>``).
        stop_ids: others a model may end its message with. They are sampled, and so stay among the ids; they
            are no part of the text, and the closing token follows as it does where a message was cut off.
        template_hash: identifies template and vocabulary; artifacts with different hashes do not mix.

    Raises:
        ChatTemplateError: if the tokenizer has no template, or one that rewrites history.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.chat_template:
            raise ChatTemplateError(
                f"the tokenizer {tokenizer.name_or_path!r} has no chat template; "
                "set tokenizer.chat_template (an instruct model comes with one)"
            )
        self.tokenizer = tokenizer
        self._before_observation, self._after_observation, closing = self._cut_template()
        self.closing_id = self._single_token(closing)
        self.pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self.closing_id
        self._refuse_rewriting_template()
        self.template_hash = _hash_of(tokenizer)
        self.stop_ids: frozenset[int] = frozenset()

    def stopping_at(self, ids: Collection[int]) -> ChatRenderer:
        """Return a renderer of messages that may end with any of these tokens, too."""
        other = copy(self)
        other.stop_ids = self.stop_ids | (set(ids) - {self.closing_id})
        return self if other.stop_ids == self.stop_ids else other

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Ids of everything up to the point where the assistant starts to write."""
        return self._encode(self._render(messages, generate=True))

    def observation_ids(self, observation: str) -> list[int]:
        """Ids between an action's closing token (exclusive) and the start of the next action."""
        return self._encode(self._before_observation + observation + self._after_observation)

    def action_ids(self, text: str) -> list[int]:
        """Ids of an action given as text (a demonstration), closing token included."""
        return [*self._encode(text), self.closing_id]

    def action_text(self, ids: Sequence[int]) -> str:
        """Text of sampled action ids; the token that ended it and the closing token may be present."""
        body = ids[:-1] if ids and ids[-1] == self.closing_id else ids
        body = body[:-1] if body and body[-1] in self.stop_ids else body
        return str(self.tokenizer.decode(list(body), skip_special_tokens=False))

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _render(self, messages: Sequence[Message], *, generate: bool) -> str:
        text: str = self.tokenizer.apply_chat_template(
            [dict(message) for message in messages], tokenize=False, add_generation_prompt=generate
        )
        return text

    def _cut_template(self) -> tuple[str, str, str]:
        """Return the text before and after an observation, and the assistant's closing token."""
        opening: list[Message] = [
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": _REPLY},
        ]
        full = self._render([*opening, {"role": "user", "content": _USER}], generate=True)
        if full.count(_REPLY) != 1 or full.count(_USER) != 1:
            raise ChatTemplateError("the chat template drops or repeats message contents")
        between, after = full.split(_REPLY)[1].split(_USER)
        closing = self._leading_special_token(between)
        return between[len(closing) :], after, closing

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
        ids = self._encode(text)
        if len(ids) != 1:
            raise ChatTemplateError(f"the closing token {text!r} encodes to {len(ids)} ids, expected 1")
        return ids[0]

    def _refuse_rewriting_template(self) -> None:
        """Compare a long conversation, rendered whole, with the pieces this class would append."""
        messages: list[Message] = [{"role": "user", "content": "first question"}]
        pieces = self._render(messages, generate=True)
        closing = self.tokenizer.convert_ids_to_tokens(self.closing_id)
        for turn, reply in enumerate(_PROBE_REPLIES):
            observation = f"observation {turn}"
            messages.append({"role": "assistant", "content": reply})
            messages.append({"role": "user", "content": observation})
            pieces += reply + closing + self._before_observation + observation + self._after_observation
        rendered = self._render(messages, generate=True)
        if rendered != pieces:
            at = next(
                (i for i, (a, b) in enumerate(zip(rendered, pieces, strict=False)) if a != b),
                min(len(rendered), len(pieces)),
            )
            raise ChatTemplateError(
                "the chat template rewrites earlier turns, so sampled tokens would not be the tokens "
                f"trained on; expected {pieces[at : at + 40]!r} but the template "
                f"gives {rendered[at : at + 40]!r}. "
                "Use a template that only appends (Qwen2.5's does; Qwen3's drops old thoughts)"
            )


def _hash_of(tokenizer: PreTrainedTokenizerBase) -> str:
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    # The same vocabulary can be used in several ways: how a text is split belongs to the identity too.
    split = tokenizer(_PROBE_TEXT, add_special_tokens=False)["input_ids"]
    content = json.dumps([tokenizer.chat_template, vocabulary, split], ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()[:16]
