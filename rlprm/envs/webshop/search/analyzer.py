"""From text to terms, close to Lucene's English analyzer, which upstream's index uses."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator

from rlprm.envs.webshop.search.porter_stemmer import stem

__all__ = ["STOP_WORDS", "terms"]

_STOP_WORDS = (
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these "
    "they this to was will with"
)
STOP_WORDS = frozenset(_STOP_WORDS.split())
"""Lucene's."""

# Letters and digits, joined by what Unicode's word boundaries let stand inside of words and numbers.
_WORD = re.compile(r"\w+(?:['’]\w+|(?<=\d)[.,](?=\d)\w+|(?<=[^\W\d])\.(?=[^\W\d])\w+)*")
_LONGEST = 255  # characters of a word; as Lucene's tokenizer does, what follows is another word
_POSSESSIVE = ("'s", "’s")


def terms(text: str, most: int | None = None) -> list[str]:
    """Return the stems of a text's words in their order, without stop words.

    Args:
        text: In any case.
        most: How many words are read, stop words not counted; all if None.
    """
    stems = (term for word in _words(text.lower()) if (term := _term(word)) is not None)
    return list(itertools.islice(stems, most))


def _words(text: str) -> Iterator[str]:
    words: list[str] = _WORD.findall(text)
    if max(map(len, words), default=0) <= _LONGEST:
        return iter(words)
    return (piece for word in words for piece in _pieces(word))


def _pieces(word: str) -> Iterator[str]:
    start = 0
    while match := _WORD.search(word, start, start + _LONGEST):
        yield match[0]
        start = match.end()


@functools.lru_cache(maxsize=100_000)
def _term(word: str) -> str | None:
    bare = word[:-2] if word.endswith(_POSSESSIVE) else word
    return None if bare in STOP_WORDS else stem(bare)
