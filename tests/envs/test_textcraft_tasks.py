"""TextCraft: goals, splits and what a task shows."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from rlprm.envs import textcraft
from rlprm.envs.textcraft import load_book
from rlprm.envs.textcraft.goals import commands, split_goals
from rlprm.errors import ConfigError
from rlprm.types import End, Split, Task
from tests.toys.textcraft import small_book


def test_no_goal_is_in_two_splits() -> None:
    goals = {split: {t.spec["goal"] for t in textcraft.tasks(split, 0, 1000)} for split in Split}
    assert {split: len(found) for split, found in goals.items()} == {
        Split.TRAIN: 347,
        Split.DEV: 100,
        Split.TEST: 100,
    }
    assert sum(len(found) for found in goals.values()) == len(set().union(*goals.values()))


def test_test_and_dev_goals_have_the_published_depths() -> None:
    depth = load_book().depth
    for split in (Split.TEST, Split.DEV):
        found = textcraft.tasks(split, 0, 100)
        assert len({t.spec["goal"] for t in found}) == 100
        assert Counter(depth[t.spec["goal"]] for t in found) == {1: 31, 2: 41, 3: 25, 4: 3}


def test_other_depths_leave_every_goal_in_its_split() -> None:
    for split in Split:
        every = set(split_goals(None, (1, 2, 3, 4))[split])
        parts = [set(split_goals(None, depths)[split]) for depths in ((1, 3), (2,), (4,))]
        assert set().union(*parts) == every


def test_tasks_beyond_the_goals_have_other_distractors() -> None:
    first, again = textcraft.tasks(Split.TEST, 0, 1)[0], textcraft.tasks(Split.TEST, 100, 1)[0]
    assert first.spec["goal"] == again.spec["goal"]
    assert first.spec["seed"] != again.spec["seed"]
    observations = [textcraft.make(t, end=End.ON_SUCCESS).reset() for t in (first, again)]
    assert observations[0] != observations[1]


def test_depths_choose_the_goals() -> None:
    depth = load_book().depth
    assert {depth[t.spec["goal"]] for t in textcraft.tasks(Split.TRAIN, 0, 50, depths=[2, 3])} == {2, 3}


@pytest.mark.parametrize("depths", [[], "12", [0], [1, 1], [1.5], [True], [9], 2, None])
def test_impossible_depths_are_config_errors(depths: Any) -> None:
    with pytest.raises(ConfigError, match="depth"):
        textcraft.tasks(Split.TRAIN, 0, 1, depths=depths)


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"goal": "stick"},
        {"goal": "oak log", "seed": 1},
        {"goal": "stick", "seed": True},
        {"goal": ["x"], "seed": 1},
    ],
)
def test_a_foreign_spec_is_a_config_error(spec: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="not a textcraft task"):
        textcraft.make(Task("textcraft", "stranger", Split.TEST, spec), end=End.DECLARED)


def test_a_task_shows_what_leads_to_its_goal_and_up_to_ten_distractors() -> None:
    book = load_book()
    for t in textcraft.tasks(Split.TRAIN, 0, 100):
        goal = t.spec["goal"]
        leading, related = book.surroundings(goal)
        listed = commands(book, goal, t.spec["seed"])
        assert len(listed) == len(set(listed)) == len(leading) + min(10, len(related))
        assert set(leading) <= set(listed) <= {*leading, *related}
    leading, related = small_book().surroundings("stick")
    assert leading == [
        "craft 4 birch planks using 1 birch log",
        "craft 4 oak planks using 1 oak log",
        "craft 4 stick using 2 planks",
    ]
    assert related == []
    assert small_book().surroundings("torch")[1] == ["craft 3 ladder using 7 stick"]


def test_the_text_of_a_task_is_pinned() -> None:
    """Another order or choice of distractors would make stored trajectories disagree with their tasks."""
    first = textcraft.tasks(Split.TRAIN, 0, 1)[0]
    observation = textcraft.make(first, end=End.ON_SUCCESS).reset()
    assert first.id == "golden_axe-1000000"
    assert observation.splitlines()[1:4] == [
        "craft 4 dark oak planks using 1 dark oak log",
        "craft 4 birch planks using 1 birch log",
        "craft 1 wooden axe using 3 planks, 2 stick",
    ]
