"""From text to terms, close to Lucene's English analyzer, which upstream's index uses."""

from __future__ import annotations

import re

from rlprm.envs.webshop.stemmer import stem

__all__ = ["STOP_WORDS", "terms"]

_STOP_WORDS = (
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these "
    "they this to was will with"
)
STOP_WORDS = frozenset(_STOP_WORDS.split())
"""Lucene's."""

# Letters and digits, joined by what Unicode's word boundaries let stand inside of words and numbers.
_WORD = re.compile(r"\w+(?:['’]\w+|(?<=\d)[.,](?=\d)\w+|(?<=[^\W\d])\.(?=[^\W\d])\w+)*")
_POSSESSIVE = ("'s", "’s")


def terms(text: str) -> list[str]:
    """Return the stems of a text's words in their order, without stop words."""
    found = []
    for word in _WORD.findall(text.lower()):
        bare = word[:-2] if word.endswith(_POSSESSIVE) else word
        if bare not in STOP_WORDS:
            found.append(stem(bare))
    return found
