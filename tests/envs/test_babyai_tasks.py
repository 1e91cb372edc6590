"""BabyAI: tasks and levels."""

from __future__ import annotations

import re
from typing import Any

import pytest

from rlprm.envs import babyai
from rlprm.envs.babyai.levels import pristine_world, task_address
from rlprm.errors import ConfigError
from rlprm.types import End, Split, Task
from tests.toys.babyai import task


def test_test_task_i_is_agentgyms_data_idx_i() -> None:
    tasks = babyai.tasks(Split.TEST, 0, 100, levels=babyai.LEVELS)
    assert len(babyai.LEVELS) == 40
    assert [t.spec["level"] for t in tasks[:5]] == [
        "GoToRedBallGrey",
        "GoToRedBall",
        "GoToRedBallNoDists",
        "GoToObjS6",
        "GoToLocalS8N7",
    ]
    assert tasks[39].spec == {"level": "BossLevelNoUnlock", "seed": 0, "rules": "fixed"}
    assert tasks[85].spec == {"level": babyai.LEVELS[5], "seed": 2, "rules": "fixed"}


def test_gotoobjs6_has_the_small_room_that_agentgym_plays() -> None:
    """minigrid's version 0 of the level: a room of 4 x 4 cells with its walls, 4 * 4 steps, one object."""
    for seed in range(20):
        world = pristine_world(*task_address(task("GoToObjS6", seed))[:2])
        assert (world.width, world.height, world.max_steps, len(world.things)) == (4, 4, 16, 1)


def test_tasks_of_earlier_versions_keep_their_world() -> None:
    """Their spec has no ``rules``; their GoToObjS6 is minigrid's version 1, with rooms of 6 x 6 cells."""
    older = Task("babyai", "GoToObjS6-0", Split.TEST, {"level": "GoToObjS6", "seed": 0})
    world = pristine_world(*task_address(older)[:2])
    assert (world.width, world.max_steps) == (6, 36)
    other = Task("babyai", "GoToDoor-0", Split.TEST, {"level": "GoToDoor", "seed": 0})
    assert task_address(other) == task_address(task("GoToDoor")) == ("GoToDoor", 0, "fixed")


def test_splits_keep_to_their_seeds() -> None:
    def seeds(split: Split) -> list[int]:
        return [t.spec["seed"] for t in babyai.tasks(split, 0, 4, levels=["GoToDoor", "Open"])]

    assert seeds(Split.TEST) == [0, 0, 1, 1]
    assert seeds(Split.DEV) == [100_000, 100_000, 100_001, 100_001]
    assert seeds(Split.TRAIN) == [1_000_000, 1_000_000, 1_000_001, 1_000_001]
    assert len(babyai.tasks(Split.TEST, 199_990, 10, levels=["GoToDoor", "Open"])) == 10
    with pytest.raises(ConfigError, match="200000 tasks"):
        babyai.tasks(Split.TEST, 199_990, 11, levels=["GoToDoor", "Open"])


@pytest.mark.parametrize(
    "levels", [["GoToMars"], [], "GoToDoor", ["Open", "Open"], 5, None, {"Open": 1}, [["Open"]]]
)
def test_impossible_levels(levels: Any) -> None:
    with pytest.raises(ConfigError):
        babyai.tasks(Split.TRAIN, 0, 1, levels=levels)


def test_an_unknown_level_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"GoToLocalS8N7.*BossLevelNoUnlock"):
        babyai.tasks(Split.TRAIN, 0, 1, levels=["GoToMars"])


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"level": "GoToMars", "seed": 0},
        {"level": "Open", "seed": -1},
        {"level": "Open", "seed": 0, "rules": "no"},
    ],
)
def test_a_foreign_task_is_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        babyai.make(Task("babyai", "x", Split.TEST, spec), end=End.DECLARED)


@pytest.mark.parametrize("level", babyai.LEVELS)
def test_every_level_starts(level: str) -> None:
    observation = babyai.make(task(level), end=End.DECLARED).reset()
    assert re.fullmatch(r"Your goal: .*\n.*\nAvailable actions: \[.*\]", observation)
