"""Math problems from files and the hub: GSM8K, multiple choice, and what is damaged."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlprm.envs import math
from rlprm.envs.math import sources
from rlprm.errors import ConfigError, DataError
from rlprm.types import End, Split
from tests.envs.shared import one_line_at_most, shared_data
from tests.toys.math_files import CAPITAL, CLIPS, gsm8k_row, write


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

    def load(name: str, subset: str | None, revision: str | None) -> datasets.DatasetDict:
        asked.append((name, subset, revision))
        names = ("auxiliary_train", "validation", "dev", "test")
        rows = {name: [{**CAPITAL, "question": f"Of {name}?"}] for name in names}
        return datasets.DatasetDict({name: datasets.Dataset.from_list(rows[name]) for name in names})

    monkeypatch.setattr(datasets, "load_dataset", load)
    for split, part in {Split.TRAIN: "auxiliary_train", Split.DEV: "validation", Split.TEST: "test"}.items():
        (task,) = math.tasks(split, 0, 1, source="multiple_choice")
        assert task.spec["question"].startswith(f"Of {part}?\nA. Rome")
    math.tasks(Split.TEST, 0, 1, source="multiple_choice", subset="anatomy")
    math.tasks(Split.TEST, 0, 1, source="multiple_choice", data="my/own@v2")
    assert asked == [("cais/mmlu", "all", None), ("cais/mmlu", "anatomy", None), ("my/own", None, "v2")]


def test_a_hub_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def fail(name: str, subset: str | None, revision: str | None) -> None:
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
