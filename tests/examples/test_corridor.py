"""The corridor of the examples: what the agent is told, and when it is told."""

from __future__ import annotations

from typing import Any

import pytest

from examples import corridor
from rlprm.errors import ConfigError
from rlprm.types import End, Split, StopReason, Task


def walk(task: Task, actions: list[str], end: End = End.DECLARED) -> list[str]:
    world = corridor.make(task, end=end)
    return [world.reset(), *(world.step(action).observation for action in actions)]


def first_with(goal: int) -> Task:
    return next(t for t in corridor.tasks(Split.TRAIN, 0, 40) if t.spec["goal"] == goal)


def test_the_sign_names_the_goal_once() -> None:
    assert walk(first_with(4), ["left", "right", "left"]) == [
        "You are in cell 2.",
        "The goal is cell 4. You are in cell 1.",
        "You are in cell 2.",
        "You are in cell 1.",
    ]


def test_walls_stop_and_other_words_do_nothing() -> None:
    assert walk(first_with(4), ["right", "right", "right", "sing"])[3:] == [
        "There is a wall.",
        "You are in cell 4.",
    ]


def test_goals_are_all_cells_but_the_first() -> None:
    assert {t.spec["goal"] for t in corridor.tasks(Split.TEST, 0, 60)} == {0, 1, 3, 4}


@pytest.mark.parametrize("end", End)
@pytest.mark.parametrize("goal", [0, 1, 3, 4])
def test_the_expert_reads_the_sign_and_succeeds(goal: int, end: End) -> None:
    chosen = first_with(goal)
    world = corridor.make(chosen, end=end)
    world.reset()
    turns = [world.step(action) for action in corridor.demonstrate(chosen, end=end)]
    assert len(turns) <= corridor.ROUND_LIMIT
    assert world.has_read
    assert world.outcome().success
    assert [turn.stop for turn in turns[:-1]] == [None] * (len(turns) - 1)
    assert turns[-1].stop is (StopReason.DECLARED if end is End.DECLARED else StopReason.SUCCESS)


def test_stopping_elsewhere_is_a_failure_that_counts_the_distance() -> None:
    world = corridor.make(first_with(4), end=End.DECLARED)
    world.reset()
    world.step("finish")
    assert (world.outcome().success, world.outcome().score) == (False, 0.5 / 3)


def test_a_fork_goes_its_own_way() -> None:
    world = corridor.make(first_with(4), end=End.DECLARED)
    world.reset()
    other = world.fork()
    other.step("left")
    assert (world.cell, world.has_read) == (2, False)
    assert (other.cell, other.has_read) == (1, True)


def test_an_unknown_setting_and_a_task_that_is_not_there_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"unknown settings \['width'\]"):
        corridor.tasks(Split.TRAIN, 0, 1, width=3)
    with pytest.raises(ConfigError, match="has tasks 0 "):
        corridor.tasks(Split.TRAIN, 9_999, 2)


@pytest.mark.parametrize(
    "wrong", [{"length": "4"}, {"length": 1, "first_cell": 0, "sign": 0}, {"sign": 5}, {"first_cell": -1}]
)
def test_an_impossible_corridor_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="allowed"):
        corridor.tasks(Split.TRAIN, 0, 1, **wrong)


def test_openings_are_turns_of_user_and_assistant() -> None:
    assert corridor.opening(end=End.DECLARED, style="none") == []
    assert [m["role"] for m in corridor.opening(end=End.DECLARED, style="short")] == ["user", "assistant"]
    with pytest.raises(ConfigError, match="prompt: got 'long'"):
        corridor.opening(end=End.DECLARED, style="long")
