r"""Answers in the forms that language models write: what declares one, what does not, and which are equal."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from rlprm.envs import math
from rlprm.envs.math import answers, flexible, values
from rlprm.errors import ConfigError, DemonstrationError
from rlprm.types import End, Split, StopReason, Task
from tests.toys.trajectories import of_words

PUBLISHED = re.compile(r"#### (\-?[0-9\.\,]+)")
"""The expression of GSM8K's evaluation."""


def task_of(answer: str, rule: str = "flexible", letters: str = "") -> Task:
    return math.Problem("How many?", (f"#### {answer}",), answer, letters, rule).task("t", Split.TRAIN)


def played(message: str, answer: str, rule: str = "flexible", letters: str = "") -> tuple[bool, float]:
    """Whether a message ends the episode, and what it is paid."""
    env = math.make(task_of(answer, rule, letters), end=End.DECLARED)
    env.reset()
    turn = env.step(message)
    assert turn.stop in (None, StopReason.DECLARED)
    assert env.outcome().score == turn.reward
    return turn.stop is not None, turn.reward


@pytest.fixture
def without_math_verify(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if a formula is compared."""

    def equals(formula: str, number: str) -> bool:
        pytest.fail(f"math-verify was asked whether {formula} is {number}")

    monkeypatch.setattr(flexible, "equals", equals)


# ---------------------------------------------------------------------- what declares an answer

DECLARED = {
    # ####
    "#### 18": "18",
    "#### -7": "-7",
    "#### 1,234.50": "1234.5",
    "#### $70,000": "70000",
    "#### -$5": "-5",
    "#### $-5": "-5",
    "#### \\$70,000.00": "70000",
    "#### $\\$70,000$": "70000",
    "#### 70000 dollars": "70000",
    "#### 1/2": "0.5",
    "#### $\\frac{1}{2}$": "0.5",
    "#### \\frac{2}{3}": "2/3",
    "#### **18**": "18",
    "#### x = 18": "18",
    "#### 50%": "50",
    "#### 2 million": "2000000",
    "####18": "18",
    "##### 18": "18",
    "#### 2^{10}": "2^{10}",
    "#### 2x": "2",  # as published
    "#### 3 + 4": "3",  # as published
    "so it is\n#### $18\nand more": "18",
    "#### $3\n#### $4": "3",
    "#### 3 or #### 4": "3",  # as published
    "#### 18 (16 - 3 + 5)": "18",  # as published
    "#### Step: none\n#### $18": "18",
    # boxes
    "\\boxed{18}": "18",
    "$\\boxed{18}$": "18",
    "So we get \\boxed{18} eggs.": "18",
    "$$\n\\boxed{18}\n$$": "18",
    "\\boxed {18}": "18",
    "\\boxed{1} and then \\boxed{18}": "18",
    "\\boxed{\\boxed{18}}": "18",
    "\\boxed{\\frac{1}{2}}": "0.5",
    "\\boxed{\\dfrac{1}{2}}": "0.5",
    "\\boxed{\\frac12}": "0.5",
    "\\boxed{-\\frac{3}{4}}": "-0.75",
    "\\boxed{\\frac{-3}{4}}": "-0.75",
    "\\boxed{\\frac{1,000}{4}}": "250",
    "\\boxed{3\\frac{1}{2}}": "3.5",
    "\\boxed{3 1/2}": "3.5",
    "\\boxed{\\text{18 dollars}}": "18",
    "\\boxed{18 \\text{ dollars}}": "18",
    "\\boxed{18\\text{ cm}^2}": "18",
    "\\boxed{18\\,\\mathrm{m/s}}": "18",
    "\\boxed{18^\\circ}": "18",
    "\\boxed{18cm}": "18",
    "\\boxed{\\$70{,}000}": "70000",
    "\\boxed{70,\\!000}": "70000",
    "\\boxed{70\\,000}": "70000",
    "\\boxed{50\\%}": "50",
    "\\boxed{x = 18}": "18",
    "\\boxed{12 + 6 = 18}": "18",
    "\\boxed{x \\approx 18}": "18",
    "\\boxed{\\left(18\\right)}": "(18)",
    "\\boxed{\\{18\\}}": "\\{18\\}",
    "\\boxed{18} \\boxed{": "18",
    "\\boxed{18 \\text{ red and blue pens}}": "18",
    "\\boxed{3!}": "3!",
    # labels
    "Answer: 18": "18",
    "**Answer: 18**": "18",
    "**Answer:** 18": "18",
    "**Answer**: 18": "18",
    "__Answer:__ 18.": "18",
    "**Final Answer:** $18": "18",
    "Final answer: 18 dollars": "18",
    "### Answer: 18": "18",
    "The final answer: $\\frac{1}{2}$": "0.5",
    "- My answer: 18": "18",
    "> ANSWER: 18!": "18",
    "16 + 2 = 18\nAnswer: 18": "18",
    "Answer: 12 + 6 = 18": "18",
    "Answer: x = 18": "18",
    "Answer:\n18": "18",
    "## Final Answer\n\n18": "18",
    "**Final Answer**\n$18": "18",
    "Answer: 17\nNo.\nAnswer: 18": "18",
    # sentences
    "The answer is 18": "18",
    "The answer is 18.": "18",
    "the answer is: 18!": "18",
    "The answer is $18.": "18",
    "The answer is $18.50.": "18.5",
    "The answer is $18$.": "18",
    "The answer is **18**.": "18",
    "**The answer is 18.**": "18",
    "The answer is **18.**": "18",
    "The answer is 18 dollars.": "18",
    "The answer is 18 miles per hour.": "18",
    "The answer is 40 boxes of cookies.": "40",
    "The answer is $\\frac{1}{2}$.": "0.5",
    "The answer is \\(\\frac{1}{2}\\).": "0.5",
    "The answer is \\frac{1}{2}.": "0.5",
    "The answer is $2^{10}$.": "2^{10}",
    "The answer is 3 1/2 hours.": "3.5",
    "The answer is 20%.": "20",
    "The answer is 20 percent.": "20",
    "The answer is 2 million dollars.": "2000000",
    "The answer is x = 18.": "18",
    "So the answer is 18.": "18",
    "Therefore, the final answer is 18.": "18",
    "The correct answer to this question is 18.": "18",
    "Our answer is 18.": "18",
    "16 - 7 = 9, so the answer is 9": "9",
    "16 - 7 = 9, and so the answer is 9.": "9",
    "16 - 7 = 9. The answer is 9.": "9",
    "We are done! The answer is 9.": "9",
    "The answer is 17.\nThe answer is 18.": "18",
    "The answer is:\n\n18": "18",
    "Final Answer: The final answer is $18$. I hope it is correct.": "18",
    # the first form of the list
    "\\boxed{17}\n#### $18": "18",
    "The answer is 17.\n\\boxed{18}": "18",
}  # fmt: skip


@pytest.mark.usefixtures("without_math_verify")
@pytest.mark.parametrize("message", DECLARED)
def test_declared_answers_are_read(message: str) -> None:
    found = flexible.extract(message)
    assert found is not None
    assert flexible.canonical(found) == DECLARED[message]
    made = replace(of_words([message], success=True), task=task_of("5"))
    assert math.answer(made) == DECLARED[message]


@pytest.mark.usefixtures("without_math_verify")
@pytest.mark.parametrize("message", [m for m, read in DECLARED.items() if re.fullmatch("-?[0-9.]+", read)])
def test_the_number_that_is_read_is_right_and_another_is_wrong(message: str) -> None:
    assert played(message, DECLARED[message]) == (True, 1.0)
    if not PUBLISHED.search(message):
        assert played(message, "987654") == (True, 0.0)


REASONING = [
    "",
    "18",
    "**18**",
    "16 + 2 = 18",
    "She makes $18 a day.",
    "so the answer is not 18 yet",
    "The answer is not 18.",
    "The answer is 18?",
    "Is the answer 18?",
    "The answer is 12 + 3",
    "The answer is 12 + 3.",
    "The answer is 3 times 6.",
    "The answer is half of 18.",
    "The answer is 18% of 50.",
    "The answer is 18% of the total",
    "The answer is 18 or 20.",
    "The answer is between 10 and 20.",
    "The answer is 18 so far",
    "The answer is 18 for now.",
    "The answer is 18 more than before.",
    "The answer is 18 if x is 2.",
    "The answer is 18, but let us check",
    "The answer is 18. Wait, let me check.",
    "The answer is 18...",
    "The answer is 18 - 3",
    "The answer is 2x",
    "The answer is 2x.",
    "The answer is 2 x",
    "The answer is $x$.",
    "The answer is found by adding 12 and 6.",
    "The answer is the sum of 12 and 6.",
    "The answer is x = 18 or x = 20.",
    "The answer is not x = 18.",
    "The answer is",
    "The answer is:",
    "If the answer is 18, then she has 20.",
    "If she has 20, the answer is 18.",
    "Check whether the answer is 18.",
    "I think the answer is 18",
    "Maybe the answer is 18.",
    "Suppose that the answer is 18.",
    "It is not true that the answer is 18.",
    "No, the answer is 18.",
    "The answer to part (a) is 18.",
    "The first answer is 18.",
    "The answer for Monday is 18.",
    "the answerer is 18",
    "Another answer is 18.",
    "Answer the question: 12 + 3",
    "Answer: 12 + 3",
    "Answer: first compute 12 + 3",
    "Answer: 3 hours and 20 minutes",
    "Answer: Let us see.",
    "Answer: 18 or 20",
    "Answer 1: 18",
    "Answer:",
    "Answer: ?",
    "Answer:\nWe add 12 and 6.",
    "Previous answer: 18",
    "The answers: 18",
    "An answer: 18",
    "What is 3 + 4? Answer: 7",
    "### Step 18",
    "### 18",
    "#### Step 1: add 12 and 6",
    "#### twelve",
    "####",
    "#### x",
    "#### Answer",
    "\\boxed{}",
    "\\boxed{ }",
    "\\boxed{?}",
    "\\boxed{answer}",
    "\\boxed{\\text{twelve}}",
    "\\boxed{18",
    "\\boxed{\\frac{1}{2}",
    "\\boxed 18",
    "\\box{18}",
    "boxed{18}",
    "Put the answer into \\boxed{}.",
]  # fmt: skip


@pytest.mark.parametrize("message", REASONING)
def test_reasoning_ends_no_episode(message: str) -> None:
    assert flexible.extract(message) is None
    assert played(message, "18") == (False, 0.0)
    assert math.answer(replace(of_words([message], success=False), task=task_of("18"))) is None


@pytest.mark.parametrize(
    ("message", "letter"),
    [
        ("#### B", "B"),
        ("#### b) Paris", "B"),
        ("#### **B**", "B"),
        ("#### $B$", "B"),
        ("\\boxed{B}", "B"),
        ("\\boxed{b}", "B"),
        ("\\boxed{(B)}", "B"),
        ("$\\boxed{\\text{B}}$", "B"),
        ("\\boxed{\\textbf{(B)}}", "B"),
        ("\\boxed{\\text{B. Paris}}", "B"),
        ("\\boxed{A} no, \\boxed{B}", "B"),
        ("**Answer: B**", "B"),
        ("**Answer:** (B) Paris", "B"),
        ("Answer: B. Paris", "B"),
        ("Answer: B) Paris", "B"),
        ("Answer: (b)", "B"),
        ("Final answer: B", "B"),
        ("Answer:\nB", "B"),
        ("The answer is (B).", "B"),
        ("The answer is B.", "B"),
        ("The answer is **B**.", "B"),
        ("The correct answer is (B) Paris.", "B"),
        ("The correct answer is B: Paris", "B"),
        ("Paris lies on the Seine, so the answer is B", "B"),
        ("The answer is A.\nThe answer is B.", "B"),
        # near misses
        ("B", None),
        ("Paris (B)", None),
        ("#### A good answer is B", None),
        ("#### E", None),  # of four choices
        ("\\boxed{E}", None),
        ("\\boxed{2}", None),
        ("\\boxed{A, B}", None),
        ("\\boxed{A or B}", None),
        ("\\boxed{Both}", None),
        ("\\boxed{}", None),
        ("Answer: A good question", None),
        ("Answer: a", None),
        ("Answer: A, B", None),
        ("Answer: A) or B)", None),
        ("Answer: E", None),
        ("The answer is a", None),
        ("The answer is A good one", None),
        ("The answer is B. But let me check C.", None),
        ("The answer is (B), but let me check C.", None),
        ("The answer is (B) but let me check C.", None),
        ("The answer is (A) or (B).", None),
        ("The answer is not B.", None),
        ("The answer is B?", None),
        ("I think the answer is B", None),
        ("If the answer is B, A is wrong.", None),
        ("The answer is 2.", None),
        ("Among A, B, C and D", None),
    ],
)
def test_letters_of_choices_are_read(message: str, letter: str | None) -> None:
    assert flexible.extract(message, letters="ABCD") == letter
    expected = (letter is not None, float(letter == "B"))
    assert played(message, "B", letters="ABCD") == expected


# ---------------------------------------------------------------------- which answers are equal

ONE_NUMBER = [
    ["0.5", ".5", "1/2", "2/4", "\\frac{1}{2}", "\\tfrac{1}{2}", "$\\frac{1}{2}$", "0.50", "x = 0.5"],
    ["70000", "70,000", "$70,000", "70,000.00", "\\$70{,}000", "70000 dollars", "70 thousand", "+70000"],
    ["50", "50%", "50\\%", "50 percent", "50 dollars", "\\text{50 dollars}", "\\boxed{50}", "**50**", "50."],
    ["1/3", "2/6", "\\frac{1}{3}", "\\dfrac{2}{6}", "\\frac13"],
    ["-0.75", "-3/4", "-\\frac{3}{4}", "\\frac{-3}{4}", "\u2212\\frac{3}{4}"],
    ["3.5", "3 1/2", "3\\frac{1}{2}", "3 \\frac{1}{2}", "7/2"],
    ["0", "-0", "0.0", "0/5", "$0"],
]


@pytest.mark.usefixtures("without_math_verify")
@pytest.mark.parametrize("written", ONE_NUMBER)
def test_one_number_has_one_text_and_other_numbers_have_others(written: list[str]) -> None:
    assert {flexible.canonical(text) for text in written} == {written[0]}
    number = values.written_number(written[0])
    assert number is not None
    for other in ONE_NUMBER:
        for text in other:
            found = values.written_number(text)
            assert found is not None
            assert (number.values[0] == found.values[0]) is (other is written)


@pytest.mark.usefixtures("without_math_verify")
@pytest.mark.parametrize(
    ("answer", "solution", "equal"),
    [
        ("18", "18.0", True),
        ("$18", "18", True),
        ("18 ducks", "18", True),
        ("18 ducks", "19", False),
        ("1/2", "0.5", True),
        ("1/3", "0.3", False),
        ("50%", "50", True),
        ("50%", "0.5", True),
        ("50%", "5", False),
        ("2 million", "2000000", True),
        ("2 million", "2", True),
        ("2 million", "2000", False),
        ("18.0000001", "18", False),  # numbers are compared exactly
        ("-5", "5", False),
        ("3 dozen", "3", False),  # or 36: neither is read
        ("18 and a half", "18", False),
        ("18 or 20", "18", False),
        ("18 \\text{ or } 20", "18", False),
        ("18\\text{ dollars and }20\\text{ cents}", "18", False),  # math-verify would drop the second number
        ("18 not 20", "18", False),
        ("eighteen 18", "18", False),
        ("x != 18", "18", False),
        ("x < 18", "18", False),
        ("x ≤ 18", "18", False),
        ("18 hours 30", "18", False),
        ("1.2.3", "1.2.3", True),
        ("18", "1.2.3", False),
        ("18}", "18", False),
        ("(18", "18", False),
        ("9" * 5000, "9" * 5000, True),
        ("9" * 5000, "9" * 4999, False),
        ("18 " + "very " * 100 + "long words", "18", False),
        ("2^{10}" + " " * 300, "1024", False),  # longer than an answer may be
    ],
)
def test_answers_that_need_no_algebra(answer: str, solution: str, equal: bool) -> None:
    assert flexible.same(answer, solution) is equal


@pytest.mark.parametrize(
    ("answer", "solution", "equal"),
    [
        ("2^{10}", "1024", True),
        ("2^10", "1024", True),
        ("2^{10}", "1025", False),
        ("\\sqrt{324}", "18", True),
        ("\\frac{\\sqrt{16}}{8}", "0.5", True),
        ("3 \\times 6", "18", True),
        ("3 × 6", "18", True),
        ("36 ÷ 2", "18", True),
        ("9 + 9", "18", True),
        ("9 + 9 = 19", "18", False),
        ("(18)", "18", True),
        ("1.8 \\times 10^1", "18", True),
        ("3!", "6", True),
        ("3!", "3", False),
        ("18x", "18", False),
        ("5, 18", "18", False),
        ("x \\ne 18", "18", False),
        ("x \\le 18", "18", False),
        ("\\pi", "3.14", False),
        ("18:00", "18", False),
        ("10:1", "10", True),
        ("1e999999999", "18", False),
        ("1.2.3", "1.2", False),
        ("18 x", "18", False),
        ("1/0", "1", False),
    ],
)
def test_formulas_are_compared_by_math_verify(answer: str, solution: str, equal: bool) -> None:
    assert flexible.same(answer, solution) is equal


def test_the_longest_exponent_is_not_written_out() -> None:
    assert flexible.canonical("1e999999999") == "1e999999999"


# ---------------------------------------------------------------------- properties

FRAGMENTS = r"#### |####|\boxed{|}|{|$|Answer: |**|The answer is |so |, |. |18|-7|1,234|.5|1/2|\frac{1}{2}|%"
FRAGMENTS += "| dollars| not|x|=|(B)|B|B.| |\n"
fragments = st.sampled_from(FRAGMENTS.split("|"))
messages = st.one_of(st.lists(fragments, max_size=8).map("".join), st.text(max_size=30).map("#### ".__add__))
numbers = st.sampled_from(["18", "-7", "1234", "1234.0", "0.5", "1", "2"])


@settings(max_examples=500, deadline=None)
@given(messages, numbers)
def test_the_strict_rule_is_the_published_one(message: str, solution: str) -> None:
    number = PUBLISHED.search(message)
    ends, reward = played(message, solution, "strict")
    assert ends is (number is not None)
    if number is not None:
        read = number[1].replace(",", "")
        try:
            right = Decimal(read) == Decimal(solution)
        except ArithmeticError:
            right = read == solution
        assert reward == right


@settings(max_examples=500, deadline=None)
@given(messages, numbers | st.just("B"))
@example("#### 1/2", "1")
@example("#### 1. First", "1")
def test_what_is_right_under_the_strict_rule_is_right_under_the_flexible_one(
    message: str, solution: str
) -> None:
    letters = "ABCD" if solution == "B" else ""
    ends, reward = played(message, solution, "strict", letters)
    ends_flexibly, reward_flexibly = played(message, solution, "flexible", letters)
    assert ends_flexibly >= ends
    assert reward_flexibly >= reward


FORMS = [
    "#### {n:,}", "#### ${n}", "#### \\frac{{{n}}}{{1}}", "\\boxed{{{n}}}", "$\\boxed{{{n:,}}}$",
    "\\boxed{{{n}\\text{{ dollars}}}}", "\\boxed{{{n}.00}}", "**Answer: {n}**", "Answer: ${n:,}",
    "The answer is {n}.", "The answer is ${n}.", "The answer is ${n}$.", "The answer is {n:,} dollars.",
    "The answer is {n}%.",
]  # fmt: skip


@settings(deadline=None)
@given(st.integers(-(10**12), 10**12), st.sampled_from(FORMS))
def test_a_whole_number_is_right_in_every_form(n: int, form: str) -> None:
    message = form.format(n=n)
    assert played(message, str(n)) == (True, 1.0)
    assert played(message, str(n + 1)) == (True, 0.0)
    made = replace(of_words([message], success=True), task=task_of("5"))
    assert math.answer(made) == str(n)


@settings(deadline=None)
@given(st.fractions())
def test_the_text_of_a_number_is_the_number(value: Fraction) -> None:
    assume(len(str(value)) < values.LONGEST)
    text = values.number_text(value)
    assert Fraction(text) == value
    assert flexible.canonical(text) == text
    assert flexible.canonical(f"\\frac{{{value.numerator}}}{{{value.denominator}}}") == text


braces = st.recursive(
    st.sampled_from(["1", "x", "\\frac", " ", "\\{", "\\}", "+"]),
    lambda inner: st.lists(inner, max_size=4).map(lambda parts: "{" + "".join(parts) + "}"),
    max_leaves=12,
)


@given(st.lists(braces, max_size=4).map("".join), st.text("ab {}\\", max_size=6))
def test_a_box_holds_what_is_between_its_own_braces(content: str, rest: str) -> None:
    assume("1" in content)
    found = flexible.extract(f"so \\boxed{{{content}}}{rest}")
    assert found == content


@settings(max_examples=300, deadline=None)
@given(st.one_of(messages, st.text(max_size=60)))
def test_whatever_is_read_has_a_text_that_stays(message: str) -> None:
    for letters in ("", "AB", "ABCDEFGHIJ"):
        found = flexible.extract(message, letters=letters)
        if found is not None:
            text = flexible.canonical(found)
            assert flexible.canonical(text) == text


MEGABYTE = [
    "#### " * 200_000,
    "#### x1\n" * 125_000,
    "#### " + "9" * 1_000_000,
    "\\boxed{" * 140_000,
    "\\boxed{" * 100_000 + "}" * 100_000,
    "\\boxed{" * 100_000 + "1" + "}" * 100_000,
    "\\boxed{" + "(" * 1_000_000 + "1}",
    "\\boxed{" + "1" * 1_000_000 + "}",
    "\\boxed" + " " * 1_000_000,
    "{" * 1_000_000 + "\\boxed{1}",
    "Answer: " * 125_000,
    "Answer: 1x\n" * 100_000,
    "The answer is " * 80_000 + "18",
    "The answer is 1x\n" * 60_000,
    "the" + " " * 1_000_000 + "answer is 18",
    " " * 1_000_000 + "Answer: 18",
    "Answer:" + "\n" * 1_000_000 + "18",
    "$" * 1_000_000,
    "answer" * 160_000,
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(MEGABYTE)))
def test_a_message_of_a_megabyte_is_read_at_once(number: int) -> None:
    message = MEGABYTE[number]
    for letters, answer in (("", "18"), ("ABCD", "B")):
        task = task_of(answer, letters=letters)
        env = math.make(task, end=End.DECLARED)
        env.reset()
        made = of_words(["words"], success=False)
        made = replace(made, task=task, steps=(replace(made.steps[0], action=message),))
        started = time.process_time()
        env.step(message)
        math.answer(made)
        assert time.process_time() - started < 1, message[:30]


@settings(max_examples=200, deadline=None)
@given(st.text("#{}\\()$*_ .,-/=1aB%\n", min_size=100, max_size=300))
def test_a_tangled_answer_is_read_at_once(text: str) -> None:
    started = time.process_time()
    for around in ("#### {}", "\\boxed{{{}}}", "Answer: {}", "The answer is {}"):
        found = flexible.extract(around.format(text))
        if found is not None:
            flexible.canonical(found)
    assert time.process_time() - started < 1


# ---------------------------------------------------------------------- tasks and episodes


def test_flexible_is_the_default_and_tasks_say_so() -> None:
    (task,) = math.tasks(Split.TRAIN, 0, 1)
    (flexibly,) = math.tasks(Split.TRAIN, 0, 1, answers="flexible")
    (strictly,) = math.tasks(Split.TRAIN, 0, 1, answers="strict")
    assert task == flexibly
    assert task.spec == {**strictly.spec, "answers": "flexible"}
    assert "answers" not in strictly.spec  # as stored by versions without the setting
    assert task.id == strictly.id
    for each in (task, strictly):
        env = math.make(each, end=End.DECLARED)
        env.reset()
        message = f"The answer is ${each.spec['answer']}.00."
        assert (env.step(message).reward, env.outcome().success) == (
            (0.0, False) if each is strictly else (1.0, True)
        )
    definitions = {math.make(each, end=End.DECLARED).outcome().definition for each in (task, strictly)}
    assert definitions == {
        "math: final answer equals the solution's",
        "math: final answer equals the solution's (answers: flexible)",
    }


@pytest.mark.parametrize("value", ["loose", "", None, True, ["strict"], 1])
def test_another_rule_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=r"math answers: got .*, allowed: strict, flexible"):
        math.tasks(Split.TRAIN, 0, 1, answers=value)  # type: ignore[arg-type]
    spec = {**task_of("18").spec, "answers": value}
    with pytest.raises(ConfigError, match="not a math task"):
        math.make(Task("math", "t", Split.TRAIN, spec), end=End.DECLARED)


def test_a_demonstration_ends_with_the_first_answer() -> None:
    lines = ("4 + 4 = 8", "The answer is 8.", "#### 8")
    flexibly = math.Problem("q", lines, "8", answers="flexible").task("t", Split.TRAIN)
    strictly = math.Problem("q", lines, "8").task("t", Split.TRAIN)
    assert math.demonstrate(flexibly, end=End.DECLARED) == list(lines[:2])
    assert math.demonstrate(strictly, end=End.DECLARED) == list(lines)


def test_a_solution_that_declares_something_else_first_is_no_demonstration() -> None:
    lines = ("First, \\boxed{4}.", "#### 8")
    task = math.Problem("q", lines, "8", answers="flexible").task("t", Split.TRAIN)
    with pytest.raises(DemonstrationError, match="declares another answer"):
        math.demonstrate(task, end=End.DECLARED)


def test_a_fork_reads_answers_by_the_same_rule() -> None:
    env = math.make(task_of("18"), end=End.DECLARED)
    env.reset()
    assert env.fork().step("\\boxed{18}").reward == 1.0
    assert env.step("\\boxed{17}").reward == 0.0


def test_answers_of_the_strict_rule_are_what_they_were() -> None:
    assert answers.is_right("#### 18 ducks", "18.0")
    assert not answers.is_right("\\boxed{18}", "18")
    assert not answers.is_right("no answer", "18")
