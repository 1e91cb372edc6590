r"""Final answers as language models write them: which texts declare one, and when an answer is right.

A message declares an answer in one of four forms. The first form of this list that a message has is read.

1. ``####`` and a value up to the end of the line, or ``#### `` and a number, as the strict rule reads it
   (:mod:`rlprm.envs.math.answers`). The first such line counts, as published.
2. ``\boxed{...}`` around something with a digit, or with a letter of the choices. The last box counts.
3. A line that begins with ``Answer:`` and holds nothing but a value: ``**Answer: 18**``,
   ``Final answer: 18``, ``### The answer: $18``. Instead the next line may hold the value.
4. A sentence that says "the answer is", a value, and nothing more: ``The answer is 18.``, ``Therefore, the
   final answer is $18.``, ``16 - 7 = 9, so the answer is 9``. The sentence begins its line, or follows a full
   stop, or follows a comma and begins with "so", "thus", "hence" or "therefore". The sentence ends its line.
   Of the forms 3 and 4 the last one counts.

A value is a number. The number may have a currency sign, thousands separators, a unit, a percent sign or a
fraction bar. A value is also a formula between math delimiters, and in form 1 a formula without variables.
For multiple choice a value is a letter, in brackets or a capital one (forms 1 and 2: any letter). The text
of the choice may follow after ``(B)``, ``B)`` and ``B:``, and in the forms 1 to 3 after ``B.``.

Everything else is reasoning and ends no episode: "so the answer is not 18 yet", "The answer is 18?", "The
answer is 12 + 3", "If the answer is 18, ...", "I think the answer is 18", "The answer is 18 so far", "Answer
the question: 12 + 3", a number alone.

Of a message of more than 20,000 characters, the first 20,000 are searched for form 1, and the last 20,000 for
the other forms.

An answer is right if it equals the solution. An answer is also right if the number that the strict rule reads
equals the solution. No message is therefore right under the strict rule and wrong under this one.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from itertools import islice

from rlprm.envs.math import answers
from rlprm.envs.math.grading import equals
from rlprm.envs.math.values import LONGEST, exact, is_expression, number_text, plain, written_number

__all__ = ["canonical", "extract", "is_right", "same"]

# Bounds on the work. No model writes as much; a policy that is trained may.
_SEARCHED = 20_000
_MOST = 20
_SPACE = r"[^\S\n]"
_HASHES = re.compile("#{4,}")
_STRICT = re.compile(r"#### -?[0-9.,]")
_DECIMAL = re.compile(r"[-+]?[0-9.,]+")
_BRACES = re.compile(r"(?P<box>\\boxed\s*\{)|\\.|(?P<open>\{)|\}", re.DOTALL)
_LABEL = re.compile(
    rf"^{_SPACE}*(?:#{{1,6}}{_SPACE}*|[>*+-]{_SPACE}+)?[*_]{{0,3}}(?:(?:the|my|our){_SPACE}+)?"
    rf"(?:(?:final|correct){_SPACE}+)?answer[*_]{{0,3}}{_SPACE}*(?:[:：]|$)",
    re.IGNORECASE | re.MULTILINE,
)
_SENTENCE = re.compile(
    rf"\b(?:the|my|our){_SPACE}+(?:(?:final|correct|right){_SPACE}+)?answer"
    rf"(?:{_SPACE}+to{_SPACE}+(?:the|this){_SPACE}+(?:question|problem))?{_SPACE}+is\b{_SPACE}*:?",
    re.IGNORECASE,
)
_BEGINNING = re.compile(  # what may stand before the sentence in its line
    r"(?:^[>#-]*|[.!]\s|\banswer[*_]*:|,(?=\s(?:and )?(?:so|thus|hence|therefore)\b))[\s*_]*"
    r"(?:(?:and )?(?:so|thus|hence|therefore|consequently|finally|in conclusion|as a result),?)?[\s*_]*$",
    re.IGNORECASE,
)
_LONGEST_BEGINNING = 40
_HOPE = re.compile(r"\.\s*I hope (?:it|this) is correct\.?\s*$", re.IGNORECASE)
_AROUND = re.compile(r"^[\s*_]+|[\s*_]*[.!]?[\s*_]*$")  # emphasis that began before the value, a full stop
_DELIMITED = re.compile(r"\$.*\$|\\\(.*\\\)|\\\[.*\\\]|-?\\(?:[dtc]?frac|sqrt)(?![A-Za-z]).*", re.DOTALL)
_LETTER = re.compile(
    r"(?:[(\[](?P<bracketed>[A-Za-z])[)\]]|(?P<bare>[A-Za-z]))(?P<mark>[).:]?)(?:\s+(?P<word>[^\W\d_]*).*)?",
    re.DOTALL,
)
_MARKS, _MARKS_IN_SENTENCE = ").:", "):"
_DOUBTS = frozenset(
    ("and", "but", "however", "if", "is", "maybe", "nor", "not", "or", "then", "unless", "wait")
)
# Words that may follow a number in a sentence, and then show that the number is no answer yet.
_REASONING_WORDS = """
about above actually after again ago already also although am and another any approximately are around as at
be because been before below between but by can check correct could did do does else even except false far
first for from given guess had has have he hence her here hmm how i if incorrect initially instead into is
it its just less let lets like likely may maybe me might more must my next no nor not now off on only or our
out perhaps possibly probably right same she should since so some still such sure than that the their them
then there these they this those though through thus to too true under unless unlike until up via wait was
we were what when where whether which while who whose why will with without would wrong yet you
"""
_REASONING = frozenset(_REASONING_WORDS.split())


def extract(text: str, *, letters: str = "") -> str | None:
    """Return the final answer that a message declares, as it is written there, or None.

    Args:
        text: one line or several.
        letters: those of a problem's choices, one of which is looked for instead of a number.
    """
    if "####" not in text and "\\boxed" not in text and "answer" not in text.lower():
        return None  # most lines of reasoning, at once
    if letters:
        return answers.extract(text, letters=letters) or _extract_letter(text, letters)
    read_strictly = answers.extract(text)
    for match in islice(_HASHES.finditer(text, 0, _SEARCHED), _MOST):
        value = _rest_of_line(text, match.end()).strip()
        has_number = _STRICT.match(text, match.end() - 4)
        # "#### 18 (16 + 2)" is 18, with a remark.
        if written_number(value) is not None or (_is_formula(value) and not (has_number and " " in value)):
            return value
        if has_number:
            return read_strictly
    for box in _boxes(text):
        if re.search(r"[0-9]", box):
            return box
    for value, _ in _statements(text):
        if _is_stated(value):
            return value.strip()
    return read_strictly


def canonical(answer: str) -> str:
    r"""Return one text for answers that are equal, where that is cheap to see.

    Numbers and fractions get one text, however they are written: 1/2 and ``\frac{1}{2}`` become 0.5,
    $70,000 and "70000 dollars" become 70000, 50% becomes 50, and "2 million" becomes 2000000. Formulas
    keep their texts, without what typesets them. So ``2^{10}`` and 1024 remain two answers, and 50% and
    0.5 do.
    """
    if (written := written_number(answer)) is not None:
        return number_text(written.values[0])
    text = plain(answer)
    # An exponent, as in 1e999999999, would be written out.
    return answers.canonical(text) if _DECIMAL.fullmatch(text) else text


def same(answer: str, solution: str) -> bool:
    """Whether an answer equals the solution of a number problem.

    Numbers are compared exactly, without math-verify. A number with a percent sign or with a word such as
    "million" may count the sign or the word, or not. math-verify compares a formula within a time limit. What
    takes longer, or has more than :data:`rlprm.envs.math.values.LONGEST` characters, is wrong.

    Args:
        answer: as :func:`extract` returns it.
        solution: a number, as problems have it.

    Raises:
        ConfigError: if math-verify cannot be started.
    """
    if answers.same(answer, solution):
        return True
    wanted = exact(solution)
    if wanted is None or len(answer) > LONGEST:
        return False
    if (written := written_number(answer)) is not None:
        return wanted in written.values
    formula = plain(answer)
    return is_expression(formula) and equals(formula, answers.canonical(solution))


def is_right(text: str, solution: str, *, letters: str = "") -> bool:
    """Whether a message declares an answer that equals the solution.

    Raises:
        ConfigError: if math-verify cannot be started.
    """
    found = extract(text, letters=letters)
    if found is None or letters:
        return found == solution
    read_strictly = answers.extract(text)
    return (read_strictly is not None and answers.same(read_strictly, solution)) or same(found, solution)


def _extract_letter(text: str, letters: str) -> str | None:
    """Return the letter that is declared in a form that the strict rule does not have, or None."""
    for match in islice(_HASHES.finditer(text, 0, _SEARCHED), _MOST):
        if letter := _letter(_rest_of_line(text, match.end()), letters, small=True):
            return letter
    for box in _boxes(text):
        if letter := _letter(box, letters, small=True):
            return letter
    for value, is_sentence in _statements(text):
        if letter := _letter(value, letters, in_sentence=is_sentence):
            return letter
    return None


def _boxes(text: str) -> Iterator[str]:
    """Return what the boxes of a message hold, the last one first, an outer one before those inside."""
    text = text[-_SEARCHED:]
    opened: list[int | None] = []
    closed: deque[tuple[int, int]] = deque(maxlen=_MOST)
    for match in _BRACES.finditer(text):
        if match["box"]:
            opened.append(match.end())
        elif match["open"]:
            opened.append(None)
        elif match[0] == "}" and opened and (start := opened.pop()) is not None:
            closed.append((start, match.start()))
    for start, end in reversed(closed):
        yield text[start:end]


def _statements(text: str) -> Iterator[tuple[str, bool]]:
    """Return what follows "Answer:" or "the answer is", and whether the latter; the last one first."""
    if len(text) > _SEARCHED:
        text = text[-_SEARCHED:].partition("\n")[2]  # whole lines: how a line begins counts
    labels = deque((match.end() for match in _LABEL.finditer(text)), maxlen=_MOST)
    sentences = deque(_SENTENCE.finditer(text), maxlen=_MOST)
    found = [(end, False) for end in labels]
    found += [(match.end(), True) for match in sentences if _begins(text, match.start())]
    for end, is_sentence in sorted(found, reverse=True):
        value = _rest_of_line(text, end)
        if not value.strip(" *_\t\r"):
            rest = text[end + len(value) : end + len(value) + 2 * LONGEST].lstrip()
            value = _rest_of_line(rest, 0)
        yield _AROUND.sub("", _HOPE.sub("", value)), is_sentence


def _begins(text: str, start: int) -> bool:
    """Whether a sentence may begin at a place, so that what stands before does not put it in question."""
    before = text[max(0, start - _LONGEST_BEGINNING) : start]
    is_whole = start <= _LONGEST_BEGINNING or "\n" in before
    return _BEGINNING.search(before.rpartition("\n")[2] if is_whole else "x" + before) is not None


def _rest_of_line(text: str, start: int) -> str:
    """Return the line from a place on, or so much of a long one that no value fits into it."""
    return text[start : start + 2 * LONGEST].partition("\n")[0]


def _is_formula(value: str) -> bool:
    """Whether a value is a formula between math delimiters, or one of numbers alone."""
    formula = plain(value)
    if not is_expression(formula):
        return False
    return _is_delimited(value) or not re.search("[A-Za-z]", re.sub(r"\\[A-Za-z]+", "", formula))


def _is_stated(value: str) -> bool:
    """Whether what follows "the answer is" is a value and nothing more."""
    if (written := written_number(value)) is not None:
        return _REASONING.isdisjoint(written.words)
    return _is_delimited(value) and is_expression(plain(value))


def _is_delimited(value: str) -> bool:
    return _DELIMITED.fullmatch(_AROUND.sub("", value)) is not None


def _letter(value: str, letters: str, *, small: bool = False, in_sentence: bool = False) -> str | None:
    """Return the letter that a value is, or begins with, or None.

    Args:
        value: the text.
        letters: those there are.
        small: whether a small letter may stand without brackets.
        in_sentence: whether a full stop behind the letter ends the sentence.
    """
    found = _LETTER.fullmatch(plain(value[:LONGEST]))
    if found is None:
        return None
    letter, mark = found["bracketed"] or found["bare"], found["mark"]
    if found["bare"] and letter.islower() and not small:
        return None
    if found["word"] is not None:  # the text of the choice, or reasoning that goes on
        is_apart = mark in (_MARKS_IN_SENTENCE if in_sentence else _MARKS) if mark else found["bracketed"]
        if not is_apart or found["word"].lower() in _DOUBTS:
            return None
    return letter.upper() if letter.upper() in letters else None
