r"""Numbers as language models write them: currency signs, units, percent, fractions, LaTeX.

What this module reads needs no computer algebra. :func:`written_number` reads, for instance,

    18    1,234.50    $70,000    -$5    18 dollars    18\text{ cm}^2    3/4    \frac{3}{4}    3 1/2
    50%    2 million    x = 18    **18**    $\frac{1}{2}$
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

__all__ = ["LONGEST", "Written", "exact", "is_expression", "number_text", "plain", "written_number"]

LONGEST = 200
"""Characters of the longest answer that is more than a bare number."""

_CURRENCY = "$€£¥₹₩₽₺฿"
_SCALES = {
    "%": Fraction(1, 100),
    "hundred": Fraction(100),
    "thousand": Fraction(10**3),
    "million": Fraction(10**6),
    "billion": Fraction(10**9),
    "trillion": Fraction(10**12),
}
# Behind a number these words change the number. A unit has none of them.
_CHANGING_WORDS = """
or not no plus minus times divided multiplied over than dozen dozens half halves third thirds quarter
quarters fourth fourths fifth fifths tenth tenths squared cubed factorial zero one two three four five six
seven eight nine ten eleven twelve hundred hundreds thousand thousands million millions billion billions
trillion trillions percent
"""
_CHANGING = frozenset(_CHANGING_WORDS.split())
_NUMBER = r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)"
# Letters directly behind a number are a unit if they are one of these; otherwise they may be a variable.
_ATTACHED = r"(?:mm|cm|dm|km|m|in|ft|yd|mi|mg|kg|g|lbs?|oz|ml|mL|l|L|s|sec|min|hrs?|h|mph|kph|km/h)"
_POWER = r"(?:\^\{?[23]\}?|[²³])?"
_WORD = rf"[^\W\d_][^\W\d_'’./-]*(?:[-/'’.][^\W\d_]+)*\.?{_POWER}"
_WRITTEN = re.compile(
    rf"(?P<sign>[-+]?)\s*(?:US(?=\$))?[{_CURRENCY}]?\s*(?P<inner>[-+]?)\s*"
    rf"(?:(?P<whole>[0-9]+\s*)?\\frac\{{\s*(?P<top>-?{_NUMBER})\s*\}}\s*\{{\s*(?P<bottom>{_NUMBER})\s*\}}"
    rf"|(?P<base>[0-9]+\s+)?(?P<left>{_NUMBER})\s*/\s*(?P<right>{_NUMBER})"
    rf"|(?P<number>{_NUMBER}))"
    r"(?:\s*(?P<percent>%|percent\b|percentage points?\b))?"
    rf"(?:\s+(?P<scale>{'|'.join(name for name in _SCALES if name.isalpha())}))?"
    rf"(?:\s*[{_CURRENCY}]|\s*°\s?[CF]?|{_ATTACHED}{_POWER}(?![^\W_]))?"
    rf"(?P<words>(?:\s+\(?{_WORD}\)?,?){{0,8}})\s*"
)
_NUMBERS = ("whole", "top", "bottom", "base", "left", "right", "number")
_UNITS_OF_ONE_LETTER = frozenset("aghlms")
_STANDS_FOR = (  # what a pattern is replaced by
    (
        re.compile(r"\\(?:text(?:bf|it|rm|normal)?|mbox|math(?:rm|bf|it|sf)|operatorname)\s*\{([^{}]*)\}"),
        r" \1 ",
    ),
    (re.compile(r"\{,\}|,\\!|\\,(?=\s*[0-9]{3})"), ","),
    (re.compile(r"\\(?:left|right|displaystyle)(?![A-Za-z])|\\!"), ""),
    (re.compile(r"\\[,;: ]|\\q?quad(?![A-Za-z])|~|[\u00a0\u2009\u202f]"), " "),
    (re.compile(r"\\\$"), ""),  # a currency sign; a bare one may delimit a formula
    (re.compile(r"\\([%#&])"), r"\1"),
    (re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))"), "°"),
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\frac\s*([0-9])\s*([0-9])"), r"\\frac{\1}{\2}"),
    (re.compile("[\u2212\u2013]"), "-"),
    (re.compile(r"≈|\\approx(?![A-Za-z])"), "="),
    (re.compile("×"), r"\\times "),
    (re.compile("÷"), r"\\div "),
    (re.compile(r"\s+\^"), "^"),
)
_PAIRS = (
    ("**", "**"), ("__", "__"), ("$$", "$$"), ("\\[", "\\]"), ("\\(", "\\)"),
    ("*", "*"), ("_", "_"), ("`", "`"), ("$", "$"), ("{", "}"),
)  # fmt: skip
_BOX = "\\boxed{"
_FUNCTIONS = frozenset(("sqrt", "pi", "log", "ln", "exp", "sin", "cos", "tan"))
_UNEQUAL = re.compile("[<>≤≥≠]|!=")
_LETTERS = re.compile(r"[^\W\d_]{2,}")
_OPENED_BY = {")": "(", "]": "[", "}": "{"}


class Written(NamedTuple):
    """A number as it was written."""

    values: tuple[Fraction, ...]
    """What the number may stand for: 50% is 50 and 1/2, "2 million" is 2,000,000 and 2. The first value is
    the same for equal answers."""
    words: tuple[str, ...]
    """Words beside the number, in lower case: the unit, and what stands before an equals sign."""


def plain(text: str) -> str:
    r"""Return an answer without what only typesets it: ``$``, ``\text{}``, emphasis, spaces, a full stop.

    A text longer than :data:`LONGEST` is returned as it is.
    """
    if len(text) > LONGEST:
        return text
    before = ""
    while before != text:  # \text{} may stand in \text{}
        before = text
        for pattern, replacement in _STANDS_FOR:
            text = pattern.sub(replacement, text)
        text = _without_pair(" ".join(text.split()))
        if text.endswith(".") and not text.endswith(".."):
            text = text[:-1]
    return text


def written_number(text: str) -> Written | None:
    """Return what a text stands for if it is one number, with a unit or without; None if it is not."""
    if len(text) > LONGEST:
        return None
    left, equals, right = plain(text).rpartition("=")
    if equals and _UNEQUAL.search(text):
        return None
    found = _WRITTEN.fullmatch(right.strip())
    if found is None:
        return None
    words = tuple(word.strip("().,") for word in found["words"].lower().split())
    value = _value(found)
    if value is None or not all(map(_is_of_unit, words)):
        return None
    values: tuple[Fraction, ...] = (value,)
    if found["scale"]:
        values = (value * _SCALES[found["scale"]], value)
    if found["percent"]:
        values = (*values, values[0] * _SCALES["%"])
    return Written(values, (*_LETTERS.findall(left.lower()), *words))


def exact(number: str) -> Fraction | None:
    """Return a decimal number exactly; None if the text is none, or is longer than :data:`LONGEST`."""
    # No exponent: that of 1e999999999 would be written out.
    is_number = len(number) <= LONGEST and re.fullmatch(r"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)", number)
    return Fraction(number) if is_number else None


def number_text(value: Fraction) -> str:
    """Return the one text of a number: 24, 0.5, 1/3."""
    bottom, twos, fives = value.denominator, 0, 0
    while bottom % 2 == 0:
        bottom, twos = bottom // 2, twos + 1
    while bottom % 5 == 0:
        bottom, fives = bottom // 5, fives + 1
    if bottom != 1:
        return f"{value.numerator}/{value.denominator}"
    places = max(twos, fives)
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    text = f"{digits[:-places]}.{digits[-places:]}" if places else digits
    return f"-{text}" if value < 0 else text


def is_expression(text: str) -> bool:
    r"""Whether an answer, as :func:`plain` returns it, may be a formula.

    A formula has a digit, its brackets match, and it has no words. A word in it would be read as a product of
    variables, or dropped as a unit together with a number that follows.
    """
    if len(text) > LONGEST or "$" in text or _UNEQUAL.search(text) or not any(map(str.isdigit, text)):
        return False
    names = _LETTERS.findall(re.sub(r"\\[A-Za-z]+", " ", text))
    return all(name in _FUNCTIONS for name in names) and _is_balanced(text)


def _without_pair(text: str) -> str:
    """Return a text without the outermost pair of signs that typesets it."""
    if text.startswith(_BOX) and text.endswith("}") and _is_balanced(inner := text[len(_BOX) : -1]):
        return inner
    for left, right in _PAIRS:
        inner = text[len(left) : -len(right)]
        if len(text) > len(left + right) and text.startswith(left) and text.endswith(right):
            is_pair = _is_balanced(inner) if left == "{" else left not in inner and right not in inner
            if is_pair:
                return inner
    return text


def _is_of_unit(word: str) -> bool:
    """Whether a word behind a number leaves the number as it is; most single letters may be variables."""
    return word not in _CHANGING and (len(word) > 1 or word in _UNITS_OF_ONE_LETTER)


def _is_balanced(text: str) -> bool:
    opened: list[str] = []
    for sign in text:
        if sign in "([{":
            opened.append(sign)
        elif sign in _OPENED_BY and (not opened or opened.pop() != _OPENED_BY[sign]):
            return False
    return not opened


def _value(found: re.Match[str]) -> Fraction | None:
    """Return the number of a match of ``_WRITTEN``; None if it divides by zero or has two signs."""
    if found["sign"] and found["inner"]:
        return None
    read = {name: exact(found[name].replace(",", "").strip()) for name in _NUMBERS if found[name]}
    sign = -1 if "-" in (found["sign"], found["inner"]) else 1
    if (number := read.get("number")) is not None:
        return sign * number
    above, below = (read[name] for name in (("top", "bottom") if "top" in read else ("left", "right")))
    whole = read.get("whole") or read.get("base") or Fraction(0)
    return sign * (whole + above / below) if above is not None and below else None
