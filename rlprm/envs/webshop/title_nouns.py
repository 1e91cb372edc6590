"""The nouns of a title, by a few rules or by a model of spaCy's."""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Callable

from rlprm.errors import ConfigError

__all__ = ["RULES", "by_rules", "noun_finder"]

RULES = "rules"
"""Name of the finder that needs nothing."""

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_FUNCTION_WORDS = """
    a about above after all also an and any are as at be been before best better both but by can could do
    does each every few for from had has have her his how i if in into is it its just like made make makes
    many may more most much my new no non not of off on one only or other our out over own per perfect plus
    pre same she should so some such than that the their them then there these they this those to too two
    under until up upon use used using very via was we were what when where which while who whose will with
    within without would you your
"""
_ADJECTIVES = """
    big cold cool cute dark deep double dry easy extra fast fine flat free fresh full good great handy happy
    hard heavy high hot huge large light little long low mini modern natural nice old portable premium pure
    quick raw real rich safe sharp short simple slim small smart soft solid strong super sweet tall thick
    thin tight tiny warm wet wide young beige black blue brown gray green grey orange pink purple red white
    yellow
"""
_UNITS = "cm ft g gb inch inches kg lb lbs mg mm ml oz pc pcs xl xs"
_NO_NOUNS = frozenset(f"{_FUNCTION_WORDS} {_ADJECTIVES} {_UNITS}".split())
_NO_NOUN_ENDINGS = ("able", "ible", "ful", "less", "ous", "ical", "ish", "ive", "ly", "proof", "resistant")
_NOUN_TAGS = frozenset({"NOUN", "PROPN"})


@functools.lru_cache(maxsize=100_000)
def by_rules(title: str) -> tuple[str, ...]:
    """Return the words of a title, lower case, that are no function words, frequent adjectives or units."""
    words = (word.lower() for word in _WORD.findall(title))
    return tuple(
        word for word in words
        if len(word) > 1 and word not in _NO_NOUNS and not word.endswith(_NO_NOUN_ENDINGS)
    )  # fmt: skip


@functools.lru_cache(maxsize=4)
def noun_finder(name: str) -> Callable[[str], tuple[str, ...]]:
    """Return a function from titles to their nouns.

    Args:
        name: ``"rules"``, or an installed model of spaCy's such as ``"en_core_web_sm"``.

    Raises:
        ConfigError: where spaCy or the model is not installed.
    """
    if name == RULES:
        return by_rules
    try:
        model = importlib.import_module("spacy").load(name)
    except ImportError as error:
        raise ConfigError(
            f"webshop nouns: got {name!r}, but spaCy is not installed; allowed: {RULES!r}"
        ) from error
    except (OSError, AttributeError, TypeError, ValueError) as error:
        # spaCy imports any installed package of this name and calls its `load`.
        raise ConfigError(
            f"webshop nouns: got {name!r}, not an installed model of spaCy's; allowed: {RULES!r}, "
            "or for instance 'en_core_web_lg' once it is installed"
        ) from error

    @functools.lru_cache(maxsize=100_000)
    def by_model(title: str) -> tuple[str, ...]:
        return tuple(word.text.lower() for word in model(title) if word.pos_ in _NOUN_TAGS)

    return by_model
