"""Math: answers, generated chains of arithmetic, GSM8K and multiple choice from files, episodes."""

from __future__ import annotations

import inspect
import json
import re
import time
from collections.abc import Iterable, Iterator
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
from rlprm.envs.math import arithmetic, sources
from rlprm.errors import ConfigError, DataError, DemonstrationError
from rlprm.models.tokenizer import train_tokenizer
from rlprm.policies.base import Completion
from rlprm.rollout import Episode
from rlprm.sft import render
from rlprm.types import End, EpisodeSetting, Split, StopReason, Task, Turn
from tests.data import templates
from tests.envs.shared import any_value, one_line_at_most, shared_data
from tests.toys import agents

CLIPS = {
    "question": "Natalia sold clips to 48 friends in April, and half as many in May. How many altogether?",
    "answer": "She sold 48/2 = <<48/2=24>>24 clips in May.\nThat is 48+24 = <<48+24=72>>72 clips.\n#### 72",
}
CAPITAL = {"question": "Capital of France?", "choices": ["Rome", "Paris", "Oslo", "Bern"], "answer": 1}


def gsm8k_row(number: int, answer: str = "#### 1") -> dict[str, Any]:
    return {"question": f"Question {number}?", "answer": f"A line.\n{answer}"}


def write(path: Path, rows: Iterable[Any]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def episode(answer: str = "24") -> math.Reasoning:
    task = math.Problem("How many?", (f"#### {answer}",), answer).task("t", Split.TRAIN)
    env = math.make(task, end=End.DECLARED)
    env.reset()
    return env


# ---------------------------------------------------------------------------------------- answers


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


@given(st.text(max_size=30))
def test_whatever_is_read_as_an_answer_equals_itself(text: str) -> None:
    for letters in ("", "AB", "ABCDEFGHIJ"):
        found = math.extract("#### " + text, letters=letters)
        assert found is None or math.same(found, found)


# --------------------------------------------------------------------------------------- episodes


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


# ------------------------------------------------------------------------------ generated problems

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


# --------------------------------------------------------------------------- GSM8K and other files


def test_gsm8k_becomes_lines_of_reasoning(tmp_path: Path) -> None:
    write(tmp_path / "test.jsonl", [CLIPS])
    (task,) = math.tasks(Split.TEST, 0, 1, source="gsm8k", data=str(tmp_path))
    assert math.make(task, end=End.DECLARED).reset() == CLIPS["question"]
    assert math.demonstrate(task, end=End.DECLARED) == [
        "She sold 48/2 = 24 clips in May.",
        "That is 48+24 = 72 clips.",
        "#### 72",
    ]
    (task,) = math.tasks(Split.TEST, 0, 1, source="gsm8k", data=str(tmp_path), annotations=True)
    assert math.demonstrate(task, end=End.DECLARED)[0] == "She sold 48/2 = <<48/2=24>>24 clips in May."


def test_dev_is_carved_out_of_train_and_test_is_the_published_one(tmp_path: Path) -> None:
    train = [gsm8k_row(i) for i in range(50)]
    write(tmp_path / "train.jsonl", [*train, train[3], gsm8k_row(100)])  # a repeated one, and one of test
    write(tmp_path / "test.jsonl", [gsm8k_row(i) for i in range(100, 110)])
    kwargs = {"source": "gsm8k", "data": str(tmp_path)}
    lists = {
        split: [t.spec["question"] for t in math.tasks(split, 0, count, **kwargs)]
        for split, count in {Split.TRAIN: 45, Split.DEV: 5, Split.TEST: 10}.items()
    }
    assert lists[Split.TEST] == [f"Question {i}?" for i in range(100, 110)]
    assert sorted([*lists[Split.TRAIN], *lists[Split.DEV]]) == sorted(row["question"] for row in train)
    for split, count in {Split.TRAIN: 45, Split.DEV: 5, Split.TEST: 10}.items():
        with pytest.raises(ConfigError, match=f"has {count} tasks"):
            math.tasks(split, 0, count + 1, **kwargs)


def test_what_is_dev_depends_on_the_question_and_not_on_its_place(tmp_path: Path) -> None:
    rows = [gsm8k_row(i) for i in range(200)]
    forth = write(tmp_path / "forth" / "train.jsonl", rows)
    back = write(tmp_path / "back" / "train.jsonl", rows[::-1])
    dev = [{t.id for t in math.tasks(Split.DEV, 0, 20, source="gsm8k", data=d)} for d in (forth, back)]
    assert dev[0] == dev[1]
    assert not dev[0] & {t.id for t in math.tasks(Split.TEST, 0, 20, source="gsm8k", data=forth)}


def test_a_dev_file_is_taken_where_there_is_one(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", map(gsm8k_row, range(20)))
    write(tmp_path / "validation.jsonl", [gsm8k_row(30)])
    write(tmp_path / "dev.jsonl", [gsm8k_row(31)])  # MMLU's examples for prompts
    kwargs = {"source": "gsm8k", "data": str(tmp_path)}
    assert [t.spec["question"] for t in math.tasks(Split.DEV, 0, 1, **kwargs)] == ["Question 30?"]
    assert len(math.tasks(Split.TEST, 0, 2, **kwargs)) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "train.jsonl:2 is not JSON"),
        ("[" * 100_000, "train.jsonl:2 is not JSON: maximum recursion depth"),
        ("9" * 5_000, "train.jsonl:2 is not JSON: Exceeds the limit"),
        ('{"question": "q \\ud800", "answer": "#### 1"}', "train.jsonl:2 is not a problem"),
        ('{"question": "q", "answer": "so \\udc00\\n#### 1"}', "half a surrogate pair"),
        ("[1]", "train.jsonl:2 is not a problem of this form"),
        ('{"question": "q"}', "KeyError('answer')"),
        ('{"question": "q", "answer": "no end"}', "'#### <number>'"),
        ('{"question": "q", "answer": ""}', "'#### <number>'"),
        ('{"question": "q", "answer": "#### 1\\n#### 2"}', "and no other"),
        ('{"question": " ", "answer": "#### 1"}', "it needs a question"),
        ('{"question": null, "answer": "#### 1"}', "AttributeError"),
    ],
)
def test_a_damaged_file_is_a_data_error_that_names_the_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps(CLIPS) + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=re.escape(message)):
        math.tasks(Split.TRAIN, 0, 1, source="gsm8k", data=str(path))


def test_bytes_that_are_not_utf8_are_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="cannot be read"):
        math.tasks(Split.TRAIN, 0, 1, source="gsm8k", data=str(tmp_path))


def test_a_byte_order_mark_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps(CLIPS) + "\n", encoding="utf-8-sig")
    (task,) = math.tasks(Split.TEST, 0, 1, source="gsm8k", data=str(tmp_path))
    assert task.spec["question"] == CLIPS["question"]


def test_data_in_the_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "mine" / "test.jsonl", [CLIPS])
    assert len(math.tasks(Split.TEST, 0, 1, source="gsm8k", data="~/mine")) == 1


@settings(max_examples=100, deadline=None)
@given(source=st.sampled_from(["gsm8k", "multiple_choice"]), content=st.binary(max_size=40))
def test_any_bytes_are_tasks_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, source: str, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("bytes") / "train.jsonl"
    path.write_bytes(content)
    assert one_line_at_most(lambda: math.tasks(Split.TRAIN, 0, 1, source=source, data=str(path)))


def test_a_folder_without_known_parts_is_a_config_error(tmp_path: Path) -> None:
    write(tmp_path / "problems.jsonl", [CLIPS])
    with pytest.raises(ConfigError, match="has none of the parts train, auxiliary_train, validation"):
        math.tasks(Split.TRAIN, 0, 1, source="gsm8k", data=str(tmp_path))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.sampled_from(["#### 1", "A", "B"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["question", "answer", "choices"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(source=st.sampled_from(["gsm8k", "multiple_choice"]), row=json_values)
def test_any_row_is_a_task_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, source: str, row: Any
) -> None:
    data = write(tmp_path_factory.mktemp("rows") / "test.jsonl", [row])
    folder = str(Path(data).parent)
    try:
        (task,) = math.tasks(Split.TEST, 0, 1, source=source, data=folder)
    except DataError:
        return
    env = math.make(task, end=End.DECLARED)
    assert env.reset()
    assert [env.step(a).reward for a in math.demonstrate(task, end=End.DECLARED)][-1] == 1.0


def test_multiple_choice(tmp_path: Path) -> None:
    rows = [CAPITAL, {**CAPITAL, "question": "And of Italy?", "answer": "A"}]
    write(tmp_path / "test.jsonl", rows)
    capital, italy = math.tasks(Split.TEST, 0, 2, source="multiple_choice", data=str(tmp_path))
    env = math.make(capital, end=End.ON_SUCCESS)
    assert env.reset() == "Capital of France?\nA. Rome\nB. Paris\nC. Oslo\nD. Bern"
    assert env.fork().step("#### A").reward == 0.0
    assert env.step("It is Paris.").stop is None
    assert env.step("#### B").reward == 1.0
    assert math.demonstrate(italy, end=End.DECLARED) == ["#### A"]


@pytest.mark.parametrize("answer", [4, -1, "E", "b", None, "", [1], True, 1.0, "AB", {}])
def test_a_choice_that_is_not_there_is_a_data_error(tmp_path: Path, answer: Any) -> None:
    write(tmp_path / "test.jsonl", [{**CAPITAL, "answer": answer}])
    with pytest.raises(DataError, match=r"test\.jsonl:1"):
        math.tasks(Split.TEST, 0, 1, source="multiple_choice", data=str(tmp_path))


@pytest.mark.parametrize(
    "choices",
    [
        {"text": ["Rome", "Paris", "Oslo", "Bern"], "label": ["A", "B", "C", "D"]},  # as ARC has them
        "abcd",
        ["Rome", None],
        ["Rome", True],
        [1, 2],
        ["Rome"],
        ["city"] * 11,
        [],
        None,
        ["Rome", "\ud800"],
    ],
)
def test_choices_that_are_no_list_of_texts_are_a_data_error(tmp_path: Path, choices: Any) -> None:
    write(tmp_path / "test.jsonl", [{**CAPITAL, "choices": choices}])
    with pytest.raises(DataError, match=r"test\.jsonl:1 is not a problem of this form: ") as raised:
        math.tasks(Split.TEST, 0, 1, source="multiple_choice", data=str(tmp_path))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("source", ["gsm8k", "multiple_choice"])
def test_tasks_of_files_keep_the_promises_of_the_contract(tmp_path: Path, source: str) -> None:
    for part, first in (("train", 0), ("validation", 100), ("test", 200)):
        rows = [gsm8k_row(number) for number in range(first, first + 60)]
        if source == "multiple_choice":
            rows = [{**CAPITAL, "question": row["question"]} for row in rows]
        write(tmp_path / f"{part}.jsonl", rows)
    kwargs = {"source": source, "data": str(tmp_path)}
    every = [task for split in Split for task in math.tasks(split, 0, 50, **kwargs)]
    assert len({task.id for task in every}) == len({repr(task.spec) for task in every}) == 150
    assert math.tasks(Split.TRAIN, 7, 13, **kwargs) == math.tasks(Split.TRAIN, 0, 30, **kwargs)[7:20]
    assert math.tasks(Split.DEV, 3, 0, **kwargs) == []
    for start in (-1, 10**12):
        with pytest.raises(ConfigError, match="math tasks"):
            math.tasks(Split.TEST, start, 1, **kwargs)
    assert json.loads(json.dumps(dict(every[0].spec))) == every[0].spec


@pytest.fixture
def forgets() -> Iterator[None]:
    """Leave nothing behind of what a test's own hub answered."""
    yield
    sources._read.cache_clear()


@pytest.mark.usefixtures("forgets")
def test_the_hub_is_asked_for_what_is_neither_file_nor_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = []

    def load(name: str, subset: str | None) -> datasets.DatasetDict:
        asked.append((name, subset))
        names = ("auxiliary_train", "validation", "dev", "test")
        rows = {name: [{**CAPITAL, "question": f"Of {name}?"}] for name in names}
        return datasets.DatasetDict({name: datasets.Dataset.from_list(rows[name]) for name in names})

    monkeypatch.setattr(datasets, "load_dataset", load)
    for split, part in {Split.TRAIN: "auxiliary_train", Split.DEV: "validation", Split.TEST: "test"}.items():
        (task,) = math.tasks(split, 0, 1, source="multiple_choice")
        assert task.spec["question"].startswith(f"Of {part}?\nA. Rome")
    math.tasks(Split.TEST, 0, 1, source="multiple_choice", subset="anatomy")
    math.tasks(Split.TEST, 0, 1, source="multiple_choice", data="my/own")
    assert asked == [("cais/mmlu", "all"), ("cais/mmlu", "anatomy"), ("my/own", None)]


def test_a_hub_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def fail(name: str, subset: str | None) -> None:
        raise ConnectionError("no\nnetwork")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(ConfigError, match=r"'openai/gsm8k' is no file or folder here.*no network$"):
        math.tasks(Split.TEST, 0, 1, source="gsm8k")


def test_the_published_gsm8k_is_read_whole() -> None:
    data = shared_data("gsm8k")
    started = time.perf_counter()
    kwargs = {"source": "gsm8k", "data": str(data)}
    lists = {
        Split.TRAIN: math.tasks(Split.TRAIN, 0, 6725, **kwargs),
        Split.DEV: math.tasks(Split.DEV, 0, 748, **kwargs),
        Split.TEST: math.tasks(Split.TEST, 0, 1319, **kwargs),
    }
    assert time.perf_counter() - started < 10
    assert lists[Split.TEST][0].spec["answer"] == "18"  # Janet's ducks
    every = [task for members in lists.values() for task in members]
    assert len({task.id for task in every}) == 7473 + 1319
    for task in every:
        env = math.make(task, end=End.DECLARED)
        actions = math.demonstrate(task, end=End.DECLARED)
        assert not any("<<" in action or "\n" in action for action in actions)
        assert [env.step(action).reward for action in actions] == [0.0] * (len(actions) - 1) + [1.0]


# ------------------------------------------------------------- empty observations, token by token


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
