"""Math: answers, episodes, generated chains of arithmetic, and their way through the tokens."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlprm.data.demonstrations import demonstrate
from rlprm.data.rendering import ChatRenderer
from rlprm.data.rerender import Rerenderer
from rlprm.data.store import from_row, to_row
from rlprm.envs import math
from rlprm.envs.math import arithmetic
from rlprm.envs.math.answers import canonical
from rlprm.errors import ConfigError, DemonstrationError
from rlprm.models.tokenizer import train_tokenizer
from rlprm.policies.base import Completion
from rlprm.rollouts.episode import Episode
from rlprm.stages.sft import render
from rlprm.types import End, EpisodeSetting, Split, StopReason, Task, Turn
from tests.data import templates
from tests.envs.shared import any_value, one_line_at_most
from tests.toys import agents
from tests.toys.math_files import CAPITAL, write
from tests.toys.trajectories import of_words


def episode(answer: str = "24") -> math.Reasoning:
    task = math.Problem("How many?", (f"#### {answer}",), answer).task("t", Split.TRAIN)
    env = math.make(task, end=End.DECLARED)
    env.reset()
    return env


# ---------------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("#### 24", "24"),
        ("#### -7", "-7"),
        ("#### 1,234.50", "1234.50"),
        ("so it is\n#### 24\nand more", "24"),
        ("#### 3 or #### 4", "3"),  # the first one, as published
        ("#### 24 clips", "24"),
        ("#### 24.", "24."),
        ("#### $24", None),
        ("####24", None),
        ("#### twelve", None),
        ("### 24", None),
        ("", None),
    ],
)
def test_answers_are_read_as_published(text: str, answer: str | None) -> None:
    assert math.extract(text) == answer


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("#### B", "B"),
        ("#### (c)", "C"),
        ("#### D.", "D"),
        ("#### B) Paris", "B"),
        ("#### B: Paris", "B"),
        ("#### b, I think", "B"),
        ("#### B  \r\nbecause of it", "B"),
        ("#### A good answer is B", None),
        ("#### A good answer is\n#### B", "B"),
        ("#### I think B", None),
        ("#### B or C", None),
        ("#### E", None),  # of four choices
        ("#### E.\n#### D", "D"),
        ("#### Because", None),
        ("#### 2", None),
        ("####B", None),
    ],
)
def test_letters_of_choices_are_read(text: str, letter: str | None) -> None:
    assert math.extract(text, letters="ABCD") == letter


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("24", "24", True),
        ("24", "24.0", True),
        ("24.", "24", True),
        ("0.50", ".5", True),
        ("-3", "3", False),
        ("24", "25", False),
        ("1.2.3", "1.2.3", True),
        ("1.2.3", "1.2", False),
        ("-", "0", False),
        ("B", "B", True),
        ("B", "C", False),
        ("9" * 5000, "9" * 5000 + ".0", True),  # Python refuses to read such an int
    ],
)
def test_answers_are_equal_as_text_or_as_numbers(one: str, other: str, equal: bool) -> None:
    assert math.same(one, other) is math.same(other, one) is equal
    assert (canonical(one) == canonical(other)) is equal


@given(st.text("-.0123", min_size=1, max_size=6), st.text("-.0123", min_size=1, max_size=6))
def test_equal_answers_and_no_others_have_one_text(one: str, other: str) -> None:
    assert (canonical(one) == canonical(other)) is math.same(one, other)


def test_the_answer_of_an_episode_is_that_of_its_last_line() -> None:
    task = math.Problem("How many?", ("#### 24",), "24").task("t", Split.TRAIN)
    made = of_words(["3 * 8 = 24", "#### 24.0"], success=True)
    assert math.answer(replace(made, task=task)) == "24"
    assert math.answer(replace(made, task=task, steps=made.steps[:1])) is None
    assert math.answer(replace(made, task=task, steps=())) is None
    letters = math.Problem("Which?", ("#### B",), "B", "ABC").task("t", Split.TRAIN)
    assert math.answer(replace(of_words(["#### (b)"], success=True), task=letters)) == "B"


@given(st.text(max_size=30))
def test_whatever_is_read_as_an_answer_equals_itself(text: str) -> None:
    for letters in ("", "AB", "ABCDEFGHIJ"):
        found = math.extract("#### " + text, letters=letters)
        assert found is None or math.same(found, found)


# ---------------------------------------------------------------------- episodes


@pytest.mark.parametrize("end", list(End))
def test_an_answer_ends_the_episode_whatever_the_end_is_called(end: End) -> None:
    task = math.Problem("How many?", ("#### 24",), "24").task("t", Split.DEV)
    env = math.make(task, end=end)
    assert env.reset() == "How many?"
    turn = env.step("48 / 2 = 24")
    assert (turn.observation, turn.reward, turn.stop, turn.valid) == ("", 0.0, None, True)
    turn = env.step("#### 24.0")
    assert (turn.observation, turn.reward, turn.stop) == ("", 1.0, StopReason.DECLARED)
    assert (env.outcome().score, env.outcome().success) == (1.0, True)
    with pytest.raises(RuntimeError, match="over"):
        env.step("#### 24")


def test_a_wrong_answer_ends_the_episode_too() -> None:
    env = episode("24")
    turn = env.step("I think #### 25, no #### 24")
    assert (turn.reward, turn.stop, env.outcome().score) == (0.0, StopReason.DECLARED, 0.0)


def test_a_number_is_no_answer_to_a_choice_and_a_letter_none_to_a_sum() -> None:
    assert episode("B").step("#### 2").stop is None
    assert episode("24").step("#### B").stop is None
    assert episode("B").step("#### b").reward == 1.0


def test_what_is_no_choice_of_the_problem_is_no_answer(tmp_path: Path) -> None:
    write(tmp_path / "test.jsonl", [CAPITAL])
    (task,) = math.tasks(Split.TEST, 0, 1, source="multiple_choice", data=str(tmp_path))
    assert task.spec["letters"] == "ABCD"
    env = math.make(task, end=End.DECLARED)
    env.reset()
    for line in ("#### A city on the Seine", "#### E", "#### I think B"):
        assert env.step(line) == Turn("")
    assert env.step("#### b) Paris").reward == 1.0


def test_a_choice_stored_without_its_letters_is_still_a_task() -> None:
    task = Task("math", "t", Split.TRAIN, {"question": "q", "solution": ["#### J"], "answer": "J"})
    env = math.make(task, end=End.DECLARED)
    assert env.reset() == "q"
    assert env.fork().step("#### A").reward == 0.0
    assert env.step("#### J").reward == 1.0


@pytest.mark.parametrize("line", ["", "  \n\t"])
def test_an_empty_line_is_not_valid_and_changes_nothing(line: str) -> None:
    env = episode()
    assert not env.step(line).valid
    assert env.step("#### 24").reward == 1.0


def test_without_an_answer_the_round_limit_ends_in_failure() -> None:
    task = math.tasks(Split.TRAIN, 0, 1)[0]
    policy = agents.ScriptedPolicy({("left",) * turn: ["left"] for turn in range(3)})
    running = Episode(task, 0, 0, EpisodeSetting(round_limit=3), policy)
    while running.stop is None:
        running.advance(*policy.act([running.conversation], [0]))
    done = running.trajectory()
    assert (done.stop, len(done.steps), done.outcome.score) == (StopReason.ROUND_LIMIT, 3, 0.0)
    assert [m["content"] for m in done.messages if m["role"] == "user"][1:] == [""] * 3


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"question": "q", "solution": [], "answer": "1"},
        {"question": "q", "solution": ["#### 2"], "answer": "1"},
        {"question": "q", "solution": "#### 1", "answer": "1"},
        {"question": "q", "solution": ["#### 1"], "answer": 1},
        {"question": "q", "solution": ["#### C"], "answer": "C", "letters": "AB"},
        {"question": "q", "solution": ["#### B"], "answer": "B", "letters": ["A", "B"]},
        {"question": "q", "solution": ["#### Q"], "answer": "Q"},
    ],
)
def test_the_task_of_something_else_is_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="not a math task"):
        math.make(Task("math", "t", Split.TRAIN, spec), end=End.DECLARED)


def test_a_solution_longer_than_the_round_limit_is_no_demonstration() -> None:
    lines = (*["so"] * math.ROUND_LIMIT, "#### 1")
    with pytest.raises(DemonstrationError, match="13 lines, allowed: 12"):
        math.demonstrate(math.Problem("q", lines, "1").task("t", Split.TRAIN), end=End.DECLARED)


# ---------------------------------------------------------------------- generated problems

OPERATIONS = [("+", 5), ("*", 3), ("-", 4), ("/", 8)]
LINES = ("7 + 5 = 12", "12 * 3 = 36", "36 - 4 = 32", "32 / 8 = 4", "#### 4")


def test_a_chain_in_symbols() -> None:
    assert arithmetic.problem(7, OPERATIONS) == math.Problem("What is (((7 + 5) * 3) - 4) / 8?", LINES, "4")


def test_a_chain_in_words() -> None:
    found = arithmetic.problem(7, OPERATIONS, about=("Ann", "nuts"))
    assert found.question == (
        "Ann has 7 nuts. Ann finds 5 more. Ann swaps them for 3 times as many. Ann gives 4 away. "
        "Ann keeps one of 8 equal parts. How many nuts does Ann have now?"
    )
    assert (found.solution, found.answer) == (LINES, "4")


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(list(Split)),
    st.integers(0, 5000),
    st.integers(20, 500),
    st.integers(2, 20),
    st.sets(st.integers(1, 11), min_size=1, max_size=3),
)
def test_generated_problems_are_right_and_within_their_limits(
    split: Split, start: int, largest: int, operand: int, depths: set[int]
) -> None:
    chosen = {"depths": sorted(depths), "largest": largest, "operand": operand, "wording": "symbolic"}
    for task in math.tasks(split, start, len(depths), **chosen):
        expression = re.fullmatch(r"What is (.*)\?", task.spec["question"])
        assert expression is not None
        assert eval(expression[1]) == int(task.spec["answer"])
        *lines, last = task.spec["solution"]
        assert last == f"#### {task.spec['answer']}"
        assert len(lines) in depths
        for line in lines:
            left, second, result = map(int, re.split(r" [-+*/=] ", line))
            assert eval(line.replace(" = ", " == "))
            assert max(left, result) <= largest
            assert min(left, second, result) >= 1
            assert second <= operand


def expressions(split: Split, count: int, **kwargs: Any) -> set[str]:
    found = math.tasks(split, 0, count, **kwargs)
    return {" ".join(line.split(" = ")[0] for line in task.spec["solution"][:-1]) for task in found}


def test_no_chain_is_in_two_splits_whatever_its_wording() -> None:
    train = expressions(Split.TRAIN, 4000, depths=[1, 2], wording="worded")
    dev = expressions(Split.DEV, 1000, depths=[1, 2], wording="symbolic")
    test = expressions(Split.TEST, 1000, depths=[1, 2], wording="both")
    assert not train & dev | train & test | dev & test
    # There are few of depth 1: all of them would meet if seeds alone kept the splits apart.
    assert min(map(len, (train, dev, test))) > 100


def test_there_are_thousands_of_different_tasks() -> None:
    assert len(expressions(Split.TRAIN, 8000)) > 7500
    assert len(expressions(Split.TEST, 1000)) > 900


def test_the_narrowest_settings_have_tasks_in_every_split() -> None:
    for split in Split:
        assert len(math.tasks(split, 0, 20, depths=[1], largest=20, operand=2)) == 20


def test_both_wordings_and_every_depth_and_sign_occur() -> None:
    found = math.tasks(Split.TRAIN, 0, 200, depths=[2, 5], wording="both")
    assert 60 < sum(task.spec["question"].startswith("What is ") for task in found) < 140
    assert [len(task.spec["solution"]) for task in found[:4]] == [3, 6, 3, 6]
    lines = " ".join(line for task in found for line in task.spec["solution"])
    assert min(lines.count(f" {sign} ") for sign in "+-*/") > 50


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"depths": []}, "math depths: got []"),
        ({"depths": [0]}, "math depths: got [0]"),
        ({"depths": [12]}, "from 1 to 11"),
        ({"depths": [2, 2]}, "each number once"),
        ({"depths": "2"}, "math depths: got '2'"),
        ({"largest": 19}, "math largest: got 19, allowed: whole numbers from 20 to 10000"),
        ({"largest": True}, "math largest: got True"),
        ({"operand": 1}, "math operand: got 1"),
        ({"largest": 50, "operand": 51}, "from 2 to 50"),
        ({"wording": "Latin"}, "allowed: symbolic, worded, both"),
        ({"source": "algebra"}, "allowed: arithmetic, gsm8k, multiple_choice"),
        ({"source": ["gsm8k"]}, "math source: got ['gsm8k'], allowed: arithmetic, gsm8k"),
        ({"data": "x.jsonl"}, "the math source arithmetic has no setting 'data'"),
        ({"source": "gsm8k", "depths": [2]}, "allowed: data, subset, annotations"),
        ({"source": "gsm8k", "annotations": 1}, "math annotations: got 1, allowed: true, false"),
        ({"source": "gsm8k", "data": 3}, "math data: got 3"),
        ({"source": "gsm8k", "data": ""}, "math data: got '', allowed: a path"),
        ({"source": "gsm8k", "data": "~no-such-user/x"}, "math data: got '~no-such-user/x', which cannot be"),
        (
            {"source": "multiple_choice", "data": "x" * 5_000},
            "which cannot be a path here: File name too long",
        ),
        ({"source": "gsm8k", "data": "no such/place at all"}, "a .jsonl file, a folder of them, or a hub id"),
    ],
)
def test_impossible_settings_are_named(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        math.tasks(Split.TRAIN, 0, 1, **setting)


@settings(max_examples=150, deadline=None)
@given(source=st.sampled_from(list(math.SOURCES)), value=any_value, data=st.data())
def test_any_value_of_a_sources_setting_is_taken_or_refused(
    source: str, value: Any, data: st.DataObject
) -> None:
    parameters = inspect.signature(math.SOURCES[source]).parameters.values()
    names = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    chosen = {"data": "no such/place at all"} if "data" in names else {}
    chosen[data.draw(st.sampled_from(names))] = value
    assert one_line_at_most(lambda: math.tasks(Split.TRAIN, 0, 1, source=source, **chosen))


# ---------------------------------------------------------------------- empty observations, token by token


@pytest.mark.parametrize("style", ["none", "short", "agentgym"])
def test_empty_observations_survive_rendering_storing_and_another_template(style: str) -> None:
    """A demonstration, a rollout of the same lines, and its copy in other tokens say the same."""
    task = math.tasks(Split.TRAIN, 0, 1)[0]
    shown = demonstrate(task, end=End.DECLARED, prompt=style, action_format="action_only")
    assert shown is not None
    lines = math.demonstrate(task, end=End.DECLARED)
    corpus = [message["content"] for message in shown.messages]
    policy = agents.ScriptedPolicy({})
    renderer = policy.renderer = ChatRenderer(train_tokenizer(corpus, phrases=math.FIXED_PHRASES))
    running = Episode(task, 0, 0, EpisodeSetting(prompt=style), policy)
    for line in lines:
        ids = tuple(renderer.action_ids(line))
        running.advance(Completion(ids, (-1.0,) * len(ids)))
    trajectory = running.trajectory()
    assert trajectory.outcome.success
    assert list(trajectory.token_ids) == render(shown, renderer).token_ids
    assert from_row(json.loads(json.dumps(to_row(trajectory)))) == trajectory
    other = Rerenderer(templates.foreign()).render(trajectory)
    assert [step.action for step in other.steps] == lines
    assert len(other.value_positions) == len(lines) + 1


def test_equal_numbers_are_equal_tokens_in_the_lines_of_reasoning() -> None:
    """A result is copied to the start of the next line: it must not be other tokens there."""
    found = math.tasks(Split.TRAIN, 0, 400, largest=99)
    corpus = [text for task in found for text in (task.spec["question"], *task.spec["solution"])]
    tokenizer = train_tokenizer(corpus, phrases=math.FIXED_PHRASES, vocab_size=512)
    ids = [tokenizer(line)["input_ids"] for line in ("12 * 3 = 36", "36 - 4 = 32", "#### 36")]
    assert ids[0][-2:] == ids[1][:2] == ids[2][-2:]
    assert [len(line) for line in ids] == [6, 7, 3]  # 12 is one token, 36 two
