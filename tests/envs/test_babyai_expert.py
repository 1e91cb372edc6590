"""BabyAI: the expert."""

from __future__ import annotations

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
