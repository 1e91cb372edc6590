"""ReAct as models write it, with Markdown, quotes, numbers, lower case, and turns that the model invented.

An action marker is a line that begins with "Action:", or that holds nothing but "Action". A message without
such a line is searched for a capitalised "Action:" within its lines, outside of quotes. The action is the
rest of the marker's line, or else the next line with text, or every line of a code fence there.

Quotes, backticks and emphasis around an action are dropped. What follows the first line that is headed
"Observation" was invented and is not read. Two different actions are refused, and equal ones are one.

Actions are written as ``react`` writes them. ``parse`` reads the same action back, unless the action itself
stands in quotes, backticks or emphasis, or begins with a code fence, an action marker or "Observation".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from rlprm.data.formats.base import LINE_START, TWO_ACTIONS, Parsed, without_continuation, write_react

__all__ = ["parse", "write"]

_NUMBER = r"(?:\s?[#(\[]?\d{1,4}[)\]]?)?"
_AT_START = re.compile(
    rf"{LINE_START}(?P<open>[*_`]{{0,3}})action{_NUMBER}\s?(?P<close>[*_`]{{0,3}})\s?(?:[:：](?P<rest>.*)|\s*$)",
    re.IGNORECASE,
)
_WITHIN = re.compile(
    rf"(?<![\w\"'`“‘«])(?P<open>[*_]{{0,3}})(?:Action|ACTION){_NUMBER}\s?[*_]{{0,3}}\s?[:：](?:(?P=open))?"
)
_FENCE = "```"
_LANGUAGE = re.compile(r"[\w+#.-]+")
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»"}
_APOSTROPHE = re.compile(r"(?<=\w)['’](?=\w)")

write = write_react


def parse(text: str) -> Parsed:
    """Read the action of a message by the rule above; the refusal is that of ``react``."""
    lines = without_continuation(text).split("\n")
    marked = [_at_start(line) for line in lines]
    if not any(marked):
        marked = [_within(line) for line in lines]
    actions = {_unwrapped(written) for written in _written(lines, marked)} - {""}
    if len(actions) > 1:
        return Parsed("", refusal=TWO_ACTIONS)
    return Parsed(actions.pop() if actions else "")


def _at_start(line: str) -> tuple[str, ...]:
    """Return what follows the marker that a line begins with; nothing without a marker."""
    found = _AT_START.match(line)
    if found is None:
        return ()
    rest, opened = (found["rest"] or "").strip(), found["open"]
    if opened and not found["close"]:  # **Action:** x, or **Action: x**
        rest = rest[len(opened) :] if rest.startswith(opened) else rest.removesuffix(opened)
    return (rest.strip(),)


def _within(line: str) -> tuple[str, ...]:
    """Return what follows each marker of a line, up to the next one."""
    spans = [*(match.span() for match in _WITHIN.finditer(line)), (len(line), len(line))]
    return tuple(line[end:start].strip() for (_, end), (start, _) in pairwise(spans))


def _written(lines: Sequence[str], marked: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Yield what stands in the places of actions, empty places included.

    Args:
        lines: of the message.
        marked: for each line, what follows each of its markers on the line.
    """
    at = 0
    while at < len(lines):
        written = [*marked[at]]
        at += 1
        while written and not written[-1] and at < len(lines) and not marked[at]:
            written[-1] = lines[at].strip()
            at += 1
        if written and written[-1].startswith(_FENCE) and _FENCE not in written[-1].lstrip("`"):
            first = written.pop().lstrip("`").strip()
            end = next((i for i in range(at, len(lines)) if _FENCE in lines[i]), len(lines))
            last = [line.partition(_FENCE)[0] for line in lines[end : end + 1]]
            written += _fenced(first, [*lines[at:end], *last])
            at = end + 1
        yield from written


def _fenced(first: str, lines: Sequence[str]) -> list[str]:
    """Return the lines of a code fence that have text.

    Args:
        first: what follows the opening fence on its line: a language if it is a word and lines follow.
        lines: up to the closing fence.
    """
    found = [written for line in lines for written in _at_start(line) or (line.strip(),) if written]
    return found if not first or (found and _LANGUAGE.fullmatch(first)) else [first, *found]


def _unwrapped(text: str) -> str:
    """Take off what wraps the whole of a text."""
    while (inner := _inside(text)) is not None:
        text = inner
    return text


def _inside(text: str) -> str | None:
    """Return the text inside the quotes, backticks or emphasis that wrap the whole of it; None without any.

    A full stop behind them is dropped with them. Two quoted words ("a" and "b") are not one wrapped text.
    """
    first = text[:1]
    if first and first in "`*_":
        opening = closing = text[: len(text) - len(text.lstrip(first))]
    elif first in _QUOTES:
        opening, closing = first, _QUOTES[first]
    else:
        return None
    wrapped = text.rstrip(".,;")
    if not wrapped.endswith(closing) or len(wrapped) < len(opening) + len(closing):
        return None
    inner = wrapped[len(opening) : -len(closing)]
    return None if closing in _APOSTROPHE.sub("", inner) else inner.strip()
