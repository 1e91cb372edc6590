"""BabyAI: ends, reward and success."""

from __future__ import annotations

import pytest
from minigrid.core.world_object import Ball, Door, Key
from minigrid.envs.babyai.core.verifier import ObjDesc, OpenInstr, PickupInstr

from rlprm.envs.babyai.environment import BabyAI
from rlprm.envs.babyai.view import name_of
from rlprm.types import End, StopReason
from tests.toys.babyai import DOWNWARD, goto, listed, room, started


def test_declared_announces_nothing_and_waits_for_finish() -> None:
    silent = started(room({(3, 3): Ball("red")}, goto("ball", "red"), end=End.DECLARED))
    loud = started(room({(3, 3): Ball("red")}, goto("ball", "red"), end=End.ON_SUCCESS))
    met, told = silent.step("go to red ball 1"), loud.step("go to red ball 1")
    assert told.stop is StopReason.SUCCESS
    assert (met.stop, met.reward) == (None, 0.0)
    assert told.observation.replace("\n The task is completed.", "") == met.observation.replace(
        ', "finish"]', "]"
    ).replace('"finish", "check', '"check')
    closing = silent.step("finish")
    assert closing.stop is StopReason.DECLARED
    assert "completed" not in closing.observation
    # judged by the moment the goal was met, two primitives in
    assert closing.reward == silent.outcome().score == 1 - 0.9 * 2 / 64
    assert silent.outcome().success
    assert silent.outcome().definition == "babyai: mission fulfilled by the last action that changed anything"


@pytest.mark.trap("success at any time")
def test_trap_visiting_one_object_after_another_is_no_success() -> None:
    things = {(3, 3): Ball("red"), (5, 3): Ball("green")}
    episode = started(room(things, goto("ball", "red"), end=End.DECLARED))
    episode.step("go to red ball 1")
    assert episode.outcome().success
    episode.step("check available actions")  # changes nothing
    assert episode.outcome().success
    episode.step("turn left")
    assert (episode.outcome().score, episode.outcome().success) == (0.0, False)
    episode.step("turn right")
    assert episode.fork().step("finish").reward == 1 - 0.9 * 4 / 64
    assert episode.outcome().success


def test_finish_without_the_goal_is_no_success() -> None:
    episode = started(room({(3, 3): Ball("red")}, goto("ball", "red"), end=End.DECLARED))
    assert episode.step("finish").stop is StopReason.DECLARED
    assert (episode.outcome().score, episode.outcome().success) == (0.0, False)


def test_finish_stands_before_check() -> None:
    for end, ending in (
        (End.DECLARED, ["finish", "check available actions"]),
        (End.ON_SUCCESS, ["go to red ball 1", "check available actions"]),
    ):
        observation = room({(3, 3): Ball("red")}, goto("ball", "red"), end=end).reset()
        assert listed(observation)[-2:] == ending


def strict_pickup(end: End) -> BabyAI:
    goal = PickupInstr(ObjDesc("ball", "red"), strict=True)
    return started(room({(3, 5): Key("blue"), (5, 5): Ball("red")}, goal, end=end))


def test_a_strict_failure_ends_an_episode_that_ends_on_success() -> None:
    episode = strict_pickup(End.ON_SUCCESS)
    turn = episode.step("pickup blue key 1")
    assert (turn.stop, turn.reward) == (StopReason.FAILURE, 0.0)
    assert "completed" not in turn.observation
    assert not episode.outcome().success


def test_a_strict_failure_is_remembered_in_silence_when_the_agent_declares() -> None:
    episode = strict_pickup(End.DECLARED)
    turn = episode.step("pickup blue key 1")
    assert turn.stop is None
    assert "failed" not in turn.observation
    for action in ("turn left", "drop", "turn right", "pickup red ball 1"):
        episode.step(action)
    assert name_of(episode._world.carrying) == "red ball"
    assert episode.step("finish").reward == 0.0
    assert not episode.outcome().success


@pytest.mark.parametrize("end", list(End))
def test_minigrids_step_limit_ends_the_episode(end: End) -> None:
    episode = started(
        room({(1, 1): Ball("red")}, goto("ball", "red"), agent=(6, 6), direction=DOWNWARD, end=end)
    )
    turns = [episode.step("turn left" if i % 2 else "turn right") for i in range(64)]
    assert [turn.stop for turn in turns] == [None] * 63 + [StopReason.ENV_LIMIT]
    assert not episode.outcome().success


def test_a_goal_met_with_the_last_primitive_counts() -> None:
    episode = started(room({(3, 4): Ball("red")}, goto("ball", "red")))
    for i in range(62):
        assert episode.step("turn left" if i % 2 else "turn right").stop is None
    episode._world.step_count = 63
    turn = episode.step("go to red ball 1")
    assert turn.stop is StopReason.SUCCESS
    assert turn.reward == pytest.approx(0.1)


def test_small_rewards_end_the_episode_too() -> None:
    """AgentGym's server takes `done` back when the reward is at most 0.5."""
    episode = started(room({(3, 3): Ball("red")}, goto("ball", "red")))
    for _ in range(20):
        episode.step("turn left")
        episode.step("turn right")
    turn = episode.step("go to red ball 1")
    assert turn.stop is StopReason.SUCCESS
    assert turn.reward == 1 - 0.9 * 42 / 64
    assert turn.reward < 0.5


def test_the_reward_is_given_once() -> None:
    """AgentGym's server adds the reward to the score again on every further call."""
    episode = started(room({(3, 3): Ball("red")}, goto("ball", "red"), end=End.DECLARED))
    rewards = [episode.step("go to red ball 1").reward for _ in range(3)]
    rewards += [episode.step("check").reward, episode.step("finish").reward]
    assert sum(rewards) == episode.outcome().score < 1.0
    with pytest.raises(RuntimeError):
        episode.step("finish")


def test_a_goal_met_within_an_action_counts() -> None:
    """The door is open one primitive before the action ends; AgentGym's server only asks at the end."""
    goal = OpenInstr(ObjDesc("door", "red"))
    loud = started(room({(3, 3): Door("red")}, goal))
    turn = loud.step("toggle and go through red closed door 1")
    assert turn.stop is StopReason.SUCCESS
    assert loud._world.agent_pos == (3, 4)
    silent = started(room({(3, 3): Door("red")}, OpenInstr(ObjDesc("door", "red")), end=End.DECLARED))
    silent.step("toggle and go through red closed door 1")
    assert silent._world.agent_pos == (3, 3)  # goes on, or stopping would announce it
    assert silent.outcome().success


def test_a_goal_that_was_left_behind_does_not_count() -> None:
    episode = started(
        room(
            {(3, 5): Ball("red"), (5, 5): Key("blue")},
            PickupInstr(ObjDesc("ball", "red"), strict=True),
            end=End.DECLARED,
        )
    )
    succeeded = []
    for action in ("pickup red ball 1", "drop", "pickup blue key 1", "drop", "pickup red ball 1"):
        episode.step(action)
        succeeded.append(episode.outcome().success)
    assert succeeded == [True, False, False, False, True]
