"""Final answers: how they are read from a line, and when two are the same."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

__all__ = ["declaration", "extract", "is_letter", "same"]

# The expression GSM8K was published with; what is behind a currency sign is none.
_NUMBER = re.compile(r"#### (\-?[0-9\.\,]+)")
_LETTER = re.compile(r"#### \(?([A-Za-z])(?![A-Za-z])")


def declaration(answer: str) -> str:
    """Return the line that declares an answer."""
    return f"#### {answer}"


def is_letter(answer: str) -> bool:
    """Whether an answer is the letter of a choice rather than a number."""
    return len(answer) == 1 and "A" <= answer <= "Z"


def extract(text: str, *, letter: bool = False) -> str | None:
    """Return the first final answer in a text, or None.

    Args:
        text: one line or several, read anywhere in them, as published.
        letter: the letter of a choice is looked for, and not a number; it may stand in brackets
            and be a small one. Of a number, commas are dropped.
    """
    found = (_LETTER if letter else _NUMBER).search(text)
    if found is None:
        return None
    return found[1].upper() if letter else found[1].replace(",", "")


def same(answer: str, other: str) -> bool:
    """Whether two answers are equal as published (as text) or as numbers: 24, 24.0 and 24. are."""
    if answer == other:
        return True
    try:
        return Decimal(answer) == Decimal(other)
    except InvalidOperation:  # such as 1.2.3, or a letter
        return False
