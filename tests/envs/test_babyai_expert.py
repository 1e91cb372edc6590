"""BabyAI: the expert."""

from __future__ import annotations

import contextlib

import pytest

from rlprm.envs import babyai
from rlprm.errors import DemonstrationError
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
