"""BabyAI: the expert."""

from __future__ import annotations

import contextlib

import pytest

from rlprm.envs import babyai
from rlprm.envs.babyai.actions import find_options
from rlprm.envs.babyai.levels import pristine_world
from rlprm.envs.babyai.view import look
from rlprm.errors import ConfigError, DemonstrationError
from rlprm.types import End, Split
from tests.toys.babyai import task


@pytest.mark.parametrize("level", ["GoToRedBall", "GoToLocalS8N7", "GoToSeqS5R2", "PickupLoc", "OpenDoorLoc"])
def test_the_expert_solves_its_levels(level: str) -> None:
    for t in babyai.tasks(Split.TRAIN, 0, 25, levels=[level]):
        declared = babyai.demonstrate(t, end=End.DECLARED)
        assert declared[-1] == "finish"
        assert declared == babyai.demonstrate(t, end=End.DECLARED)
        assert declared[:-1] == babyai.demonstrate(t, end=End.ON_SUCCESS)


def test_the_expert_goes_to_a_visible_target_at_once() -> None:
    assert babyai.demonstrate(task("GoToRedBall"), end=End.DECLARED) == ["go to red ball 1", "finish"]


def test_the_expert_turns_right_while_it_sees_nothing_of_interest() -> None:
    firsts = {
        babyai.demonstrate(t, end=End.DECLARED)[0]
        for t in babyai.tasks(Split.TRAIN, 0, 60, levels=["GoToRedBallNoDists"])
    }
    assert firsts == {"go to red ball 1", "turn right"}


def test_an_unsolved_task_is_a_demonstration_error() -> None:
    with pytest.raises(DemonstrationError, match="KeyInBox-0"):
        babyai.demonstrate(task("KeyInBox"), end=End.DECLARED)


def test_the_expert_puts_down_what_it_carries_at_the_start() -> None:
    demonstrations = []
    for t in babyai.tasks(Split.TRAIN, 0, 10, levels=["PutNextS7N4Carrying"]):
        with contextlib.suppress(DemonstrationError):  # a few need more actions
            demonstrations.append(babyai.demonstrate(t, end=End.DECLARED))
    assert len(demonstrations) >= 8
    assert all(actions[-2:] == ["drop", "finish"] for actions in demonstrations)
    assert not any(action.startswith("pickup") for actions in demonstrations for action in actions)


def test_a_longer_demonstration_limit_reaches_longer_missions() -> None:
    """minigrid's BlockedUnlockPickup takes this expert 24 to 33 actions."""
    level = {"levels": ["BlockedUnlockPickup"]}
    (short,) = babyai.tasks(Split.TRAIN, 0, 1, **level)
    (longer,) = babyai.tasks(Split.TRAIN, 0, 1, **level, demonstration_limit=40)
    with pytest.raises(DemonstrationError, match="needs more than 19 actions"):
        babyai.demonstrate(short, end=End.DECLARED)
    actions = babyai.demonstrate(longer, end=End.DECLARED)
    assert 20 < len(actions) <= 40
    (exact,) = babyai.tasks(Split.TRAIN, 0, 1, **level, demonstration_limit=len(actions))
    assert babyai.demonstrate(exact, end=End.DECLARED) == actions
    (less,) = babyai.tasks(Split.TRAIN, 0, 1, **level, demonstration_limit=len(actions) - 1)
    with pytest.raises(DemonstrationError):
        babyai.demonstrate(less, end=End.DECLARED)
    assert "demonstration_limit" not in short.spec
    assert longer.spec["demonstration_limit"] == 40


def test_an_expert_with_detours_still_reaches_the_goal() -> None:
    """The environment accepts each action, detours cost actions, and a task has the same ones each time."""
    levels = {"levels": ["PickupAbove", "GoToLocalS8N7"], "demonstration_limit": 60}
    straight = babyai.tasks(Split.TRAIN, 0, 20, **levels)
    distracted = babyai.tasks(Split.TRAIN, 0, 20, **levels, detours=0.5)
    lengths = [0, 0]
    for a, b in zip(straight, distracted, strict=True):
        with contextlib.suppress(DemonstrationError):  # a few need more actions
            actions = babyai.demonstrate(b, end=End.DECLARED)
            assert actions == babyai.demonstrate(b, end=End.DECLARED)
            lengths[1] += len(actions)
            lengths[0] += len(babyai.demonstrate(a, end=End.DECLARED))
    assert lengths[1] > 1.3 * lengths[0] > 0


def test_a_detour_goes_to_the_nearest_thing_that_is_not_wanted() -> None:
    """Where the straight way is one action, a first action that differs is a detour."""
    setting = {"levels": ["GoToLocalS8N7"], "demonstration_limit": 60}
    straight = babyai.tasks(Split.TRAIN, 0, 40, **setting)
    distracted = babyai.tasks(Split.TRAIN, 0, 40, **setting, detours=0.6)
    to_things = 0
    for plain, other in zip(straight, distracted, strict=True):
        way, first = babyai.demonstrate(plain, end=End.DECLARED), ""
        with contextlib.suppress(DemonstrationError):  # a few need more steps than the world has
            first = babyai.demonstrate(other, end=End.DECLARED)[0]
        if len(way) > 2 or first in ("", way[0]):
            continue
        world = pristine_world(plain.spec["level"], plain.spec["seed"]).fork()
        options = find_options(look(world), None, declared=False, direction=world.agent_dir).actions
        others = {
            a: len(p) for a, p in options.items() if a.startswith("go to ") and a != way[0] and len(p) > 1
        }
        assert first in others or first == "turn left"
        if first in others:
            assert others[first] == min(others.values())
            to_things += 1
    assert to_things >= 3


def test_tasks_without_detours_are_those_of_before() -> None:
    (plain,) = babyai.tasks(Split.TRAIN, 0, 1, detours=0.0)
    assert "detours" not in plain.spec


@pytest.mark.parametrize("detours", [1.0, -0.1, "0.5", True, float("nan"), None])
def test_detours_are_a_probability_below_one(detours: object) -> None:
    with pytest.raises(ConfigError, match="babyai detours: got"):
        babyai.tasks(Split.TRAIN, 0, 1, detours=detours)
