"""Final answers by the strict rule: how GSM8K's evaluation was published to read and to compare them."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

__all__ = ["LETTERS", "canonical", "declaration", "extract", "is_right", "same"]

LETTERS = "ABCDEFGHIJ"
"""Of the choices a problem can have."""

# The expression GSM8K was published with; what is behind a currency sign is none.
_NUMBER = re.compile(r"#### (\-?[0-9\.\,]+)")
# A letter alone: the "A" of "#### A good answer is B" is a word.
_LETTER = re.compile(r"#### \(?([A-Za-z])(?=[).:,]|[^\S\n]*$)", re.MULTILINE)


def declaration(answer: str) -> str:
    """Return the line that declares an answer."""
    return f"#### {answer}"


def extract(text: str, *, letters: str = "") -> str | None:
    """Return the first final answer in a text, or None.

    Args:
        text: one line or several, read anywhere in them, as published.
        letters: those of a problem's choices, one of which is looked for instead of a number. It may
            stand in brackets and be a small one; what follows it is one of ``).:,`` or the end of the
            line. Of a number, commas are dropped.
    """
    if not letters:
        number = _NUMBER.search(text)
        return number[1].replace(",", "") if number else None
    letters_named = (match[1].upper() for match in _LETTER.finditer(text))
    return next((letter for letter in letters_named if letter in letters), None)


def canonical(answer: str) -> str:
    """Return one text for all answers that are equal: 24, 24.0 and 24. become 24."""
    try:
        number = Decimal(answer)
    except InvalidOperation:  # such as 1.2.3, or a letter
        return answer
    if not number:
        return "0"  # -0, too
    text = format(number, "f")  # normalize() would round what has more than 28 digits
    return text.rstrip("0").rstrip(".") if "." in text else text.lstrip("+")


def same(answer: str, other: str) -> bool:
    """Whether two answers are equal as published (as text) or as numbers: 24, 24.0 and 24. are."""
    if answer == other:
        return True
    try:
        return Decimal(answer) == Decimal(other)
    except InvalidOperation:  # such as 1.2.3, or a letter
        return False


def is_right(text: str, solution: str, *, letters: str = "") -> bool:
    """Whether a text declares an answer that equals the solution."""
    found = extract(text, letters=letters)
    return found is not None and same(found, solution)
