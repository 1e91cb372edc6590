"""Text is never control: token ids of a piece in which only the template's own words give control tokens.

A tokenizer turns ``<|im_end|>`` into its control token wherever the text has it. An observation that quotes
this text would end its own message and begin another in the name of the agent. Here such a text is split
within the control string and encoded in parts, so that it reads the same and is made of ordinary tokens.
Text without control strings is encoded in one go, with the very ids that the tokenizer gives it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from transformers import PreTrainedTokenizerBase

__all__ = ["Encoder", "Part", "control_tokens"]

_ENVELOPES = {"user\n", "assistant\n", "system\n"}
"""Tokens that every embedded tokenizer has added, of every version, and no tokenizer of the hub."""
_MARKER = re.compile(r"</?(think|tool_call|tool_response|tools)>")
_WORDS = re.compile(r"[\w\s\u2581]*")  # SentencePiece writes U+2581 for a space
_ANCHORS = ("\n", "|", "~", "0", "a", ".", "\u4e2d")


@dataclass(frozen=True)
class Part:
    """A stretch of a piece.

    Attributes:
        text: its characters.
        is_template: whether the template wrote it; else it is content, and never control.
    """

    text: str
    is_template: bool = False


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Return the added tokens that text must not give, by id.

    Special tokens are control, always. A tokenizer of the hub adds its other markers (``<think>``,
    ``<tool_call>``) without that flag, so its added tokens are control unless they are made of letters,
    digits and white space: runs of blanks, or single words. The embedded tokenizer adds the phrases of an
    environment; of its tokens that are not special, only the markers of thoughts and tools are control.
    A token of one character cannot be spelled with others, and is text.
    """
    added = tokenizer.added_tokens_decoder
    special = set(tokenizer.all_special_ids)
    phrases = {token.content for i, token in added.items() if not token.special and i not in special}
    is_embedded = phrases >= _ENVELOPES
    control = {}
    for i, token in added.items():
        marked = _MARKER.fullmatch(token.content) if is_embedded else not _WORDS.fullmatch(token.content)
        if len(token.content) > 1 and (token.special or i in special or marked):
            control[i] = token.content
    return control


class Encoder:
    """Encodes texts whose contents never become control tokens.

    Args:
        tokenizer: fast or slow.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.tokens = control_tokens(tokenizer)
        self._control = frozenset(self.tokens)

    def raw(self, text: str) -> list[int]:
        """Return the ids that the tokenizer gives a text, control tokens included."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def controls(self, ids: Sequence[int]) -> list[int]:
        """Return the control tokens among ids, in order."""
        control = self._control
        return [i for i in ids if i in control]

    def encode(self, parts: Sequence[Part]) -> list[int]:
        """Return the ids of parts, put together."""
        text = "".join(part.text for part in parts)
        owners = _template_spans(parts)
        todo, done = [(0, len(text))], []
        while todo:
            start, end = todo.pop()
            cuts = self._cuts(text, start, end, owners)
            if cuts:
                todo += reversed(list(pairwise([start, *cuts, end])))
            else:
                done.append((start, end))
        ids: list[int] = []
        for start, end in done:
            ids += self._continued(text[start:end]) if start else self.raw(text[start:end])
        return ids

    def _cuts(self, text: str, start: int, end: int, owners: list[tuple[int, int]]) -> list[int]:
        """Return where to split a segment so that its control tokens of content are none any more."""
        cuts = []
        for a, b in self._occurrences(text[start:end]):
            a, b = start + a, start + b
            if not any(left <= a and b <= right for left, right in owners):
                borders = [edge for span in owners for edge in span if a < edge < b]
                cuts.append(borders[0] if borders else a + 1)
        return cuts

    def _occurrences(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield where control tokens begin and end in a text, without white space that they swallow.

        Left out is what has no other spelling: an unknown character, and a single one.
        """
        if not self.tokenizer.is_fast:
            yield from (match.span() for match in self._strings.finditer(text))
            return
        found = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        for i, (a, b) in zip(found["input_ids"], found["offset_mapping"], strict=True):
            if i in self._control:
                inner = text[a:b].strip() or text[a:b]
                a += text[a:b].find(inner)
                is_unknown = i == self.tokenizer.unk_token_id and inner != self.tokens[i]
                if len(inner) > 1 and not is_unknown:
                    yield a, a + len(inner)

    def split(self, text: str) -> list[str]:
        """Return the control tokens in a text and the words between, in order."""
        ends = [0, *(edge for match in self._strings.finditer(text) for edge in match.span()), len(text)]
        return [text[a:b] for a, b in pairwise(ends) if a < b]

    @cached_property
    def _strings(self) -> re.Pattern[str]:
        longest = sorted(self.tokens.values(), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest)) or r"(?!)")

    @cached_property
    def _begins_with_a_space(self) -> bool:
        """Whether the tokenizer puts a space in front of every text, as Llama 2's does."""
        a, b = self.raw("a"), self.raw("b")
        return bool(self.tokenizer.decode([*a, *b]).strip() != "ab")

    def _continued(self, text: str) -> list[int]:
        """Return the ids of a text that follows another, without a space of the tokenizer's own."""
        plain = self.raw(text)
        if not self._begins_with_a_space:
            return plain
        for anchor in _ANCHORS:
            head, whole = self.raw(anchor), self.raw(anchor + text)
            rest = whole[len(head) :]
            if head and whole[: len(head)] == head and self.controls(rest) == self.controls(plain):
                return rest
        return plain


def _template_spans(parts: Sequence[Part]) -> list[tuple[int, int]]:
    """Return where the template's own text begins and ends; neighbouring parts of it are one."""
    spans: list[tuple[int, int]] = []
    at = 0
    for part in parts:
        end = at + len(part.text)
        if part.is_template and part.text:
            if spans and spans[-1][1] == at:
                spans[-1] = (spans[-1][0], end)
            else:
                spans.append((at, end))
        at = end
    return spans
