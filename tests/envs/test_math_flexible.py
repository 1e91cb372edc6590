"""The rule ``answers: flexible``: which answers are equal, what no text may do, and whose tasks say so."""

from __future__ import annotations

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
from rlprm.types import End, Split, Task
from tests.toys.math_answers import PUBLISHED, played, task_of
from tests.toys.trajectories import of_words


@pytest.fixture
def without_math_verify(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if a formula is compared."""

    def equals(formula: str, number: str) -> bool:
        pytest.fail(f"math-verify was asked whether {formula} is {number}")

    monkeypatch.setattr(flexible, "equals", equals)


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


def test_digits_of_other_scripts_are_no_number() -> None:
    arabic, wide = "\u0661\u0668", "\uff11\uff18"  # 18
    for digits in (arabic, wide):
        assert values.exact(digits) is None
        assert values.written_number(digits) is None
        assert flexible.extract(f"\\boxed{{{digits}}}") is None
        assert flexible.extract(f"The answer is {digits}.") is None
    assert flexible.extract("\\boxed{18}") == "18"
