"""BabyAI by AgentGym's rules: what its server does, its mistakes included, worked out on rooms made by hand.

Coordinates are (column, row) from the top left. The agent of a room stands at (3, 6) and looks up, unless a
test says otherwise, and sees seven rows ahead, its own included, and three columns to each side.
"""

from __future__ import annotations

from typing import Any

import pytest
from minigrid.core.world_object import Ball, Box, Door, Key
from minigrid.envs.babyai.core.verifier import ObjDesc, OpenInstr, PickupInstr

from rlprm.envs import babyai
from rlprm.envs.babyai.environment import BabyAI
from rlprm.envs.babyai.served import ServedBabyAI
from rlprm.errors import ConfigError, DemonstrationError
from rlprm.types import End, Split, StopReason, Task
from tests.toys.babyai import DOWNWARD, LEFTWARD, RIGHTWARD, UPWARD, goto, listed, room, served_room, started

FORWARD, LEFT, RIGHT = 2, 0, 1


def served_task(level: str, seed: int = 0) -> Task:
    number = babyai.LEVELS.index(level) + seed * len(babyai.LEVELS)
    return babyai.tasks(Split.TEST, number, 1, levels=babyai.LEVELS, rules="agentgym")[0]


def turn_to_and_fro(episode: ServedBabyAI | BabyAI, times: int) -> None:
    for _ in range(times):
        episode.step("turn left")
        episode.step("turn right")


# ---------------------------------------------------------------------------- tasks


def test_a_task_carries_its_rules() -> None:
    task = served_task("GoToDoor", 3)
    assert task.spec == {"level": "GoToDoor", "seed": 3, "rules": "agentgym"}
    assert isinstance(babyai.make(task, end=End.ON_SUCCESS), ServedBabyAI)
    (fixed,) = babyai.tasks(Split.TEST, 0, 1, levels=["GoToDoor"], rules="fixed")
    assert isinstance(babyai.make(fixed, end=End.ON_SUCCESS), BabyAI)
    with pytest.raises(ConfigError, match="babyai rules: got 'mine', allowed: fixed, agentgym"):
        babyai.tasks(Split.TEST, 0, 1, rules="mine")


def test_agentgyms_rules_have_no_declared_end() -> None:
    with pytest.raises(ConfigError, match="end: got declared"):
        babyai.make(served_task("GoToDoor"), end=End.DECLARED)
    with pytest.raises(ConfigError, match="end: got declared"):
        babyai.demonstrate(served_task("GoToDoor"), end=End.DECLARED)


@pytest.mark.parametrize("level", babyai.LEVELS)
def test_every_level_begins_alike_under_both_rules(level: str) -> None:
    """The same world, goal and description; only the list of actions may differ."""
    task = served_task(level, 1)
    fixed = Task("babyai", task.id, Split.TEST, {**task.spec, "rules": "fixed"})
    ours, theirs = (babyai.make(t, end=End.ON_SUCCESS).reset().splitlines() for t in (fixed, task))
    assert ours[0] == theirs[0]
    assert ours[1] == theirs[1] or level == "PutNextS7N4Carrying"


# ---------------------------------------------------------------------------- ways


def rotated(position: tuple[int, int], direction: int) -> tuple[int, int]:
    """Turn a place of the room about its middle, so that up becomes a direction."""
    x, y = position
    for _ in range((direction - UPWARD) % 4):
        x, y = 7 - y, x
    return x, y


@pytest.mark.parametrize(
    ("direction", "is_offered"), [(RIGHTWARD, True), (DOWNWARD, True), (LEFTWARD, False), (UPWARD, False)]
)
def test_a_way_may_lead_through_the_row_behind_the_agent(direction: int, is_offered: bool) -> None:
    """The agent at (3, 4) has boxes ahead and at both sides: the only way out is backward."""
    boxes = [(3, 3), (2, 4), (4, 4)]
    things = {rotated(place, direction): Box("grey") for place in boxes} | {
        rotated((3, 2), direction): Key("red")
    }
    agent = rotated((3, 4), direction)
    fixed = started(room(dict(things), goto("key", "red"), agent, direction))
    refusal = "You cannot go to red key 1, as there is no path leading to it."
    assert fixed.step("go to red key 1").observation.startswith(refusal)
    episode = served_room(things, goto("key", "red"), agent, direction)
    assert ("go to red key 1" in listed(episode.reset())) == is_offered
    turn = episode.step("go to red key 1")
    if is_offered:
        # about, 1 step back, a turn, 2 steps, a turn, 3 steps, a turn, 1 step: 5 turns and 7 steps
        assert (episode._world.step_count, turn.stop) == (12, StopReason.SUCCESS)
        assert turn.reward == 1 - 0.9 * 12 / 64
    else:
        assert turn.observation.startswith(refusal)


@pytest.mark.parametrize(
    ("direction", "is_offered"), [(RIGHTWARD, False), (DOWNWARD, True), (LEFTWARD, True), (UPWARD, False)]
)
def test_a_way_may_lead_through_the_column_right_of_the_view(direction: int, is_offered: bool) -> None:
    """The agent at (2, 4) sees columns up to 5; boxes fill row 3 up to there, and column 6 is free."""
    things: dict[tuple[int, int], Any] = {rotated((x, 3), direction): Box("grey") for x in range(1, 6)} | {
        rotated((3, 2), direction): Key("red")
    }
    agent = rotated((2, 4), direction)
    assert "go to red key 1" not in listed(room(dict(things), goto("key", "red"), agent, direction).reset())
    observation = served_room(things, goto("key", "red"), agent, direction).reset()
    assert ("go to red key 1" in listed(observation)) == is_offered


def test_of_equal_ways_the_one_that_turns_first_is_taken() -> None:
    """The key at (2, 3) can only be faced from (2, 4), one column to the left and two rows ahead.

    Any order of the step to the left and the steps ahead takes five primitives. The fixed rules note the
    first predecessor of a state and so go ahead first; AgentGym's server notes the last.
    """
    things = {(2, 3): Key("red"), (3, 3): Box("grey")}
    fixed = started(room(dict(things), goto("key", "red")))
    assert fixed._options.actions["go to red key 1"] == [FORWARD, FORWARD, LEFT, FORWARD, RIGHT]
    episode = started(served_room(things, goto("key", "red")))
    assert episode._options.actions["go to red key 1"] == [LEFT, FORWARD, RIGHT, FORWARD, FORWARD]


def test_reachable_objects_are_numbered_among_themselves() -> None:
    """The nearer of two red balls is walled in. The text calls the other one 2, and the actions call it 1."""
    ring = {(2, 3): Box("grey"), (1, 4): Box("grey"), (1, 2): Box("grey")}
    things = {(1, 3): Ball("red"), (6, 1): Ball("red"), **ring}
    episode = served_room(things, goto("ball", "red"), agent=(3, 5))
    observation = episode.reset()
    assert "There is a red ball 2 4 steps in front of you and 3 steps to your right. " in observation
    assert "go to red ball 1" in listed(observation)
    assert "go to red ball 2" not in listed(observation)
    episode.step("go to red ball 1")
    assert episode._world.front_pos == (6, 1)


def test_an_unreachable_door_is_refused_with_a_dictionary() -> None:
    boxes = {(2, 6): Box("grey"), (4, 6): Box("grey"), (3, 5): Box("grey")}
    things = {(3, 3): Door("red"), (3, 4): Door("blue"), **boxes}
    episode = started(served_room(things, goto("door", "red")))
    # Sight ends at the nearer door, which is shut.
    answer = episode.step("toggle and go through blue closed door 1").observation
    assert answer.startswith(
        "You cannot toggle and go through blue closed door {'blue closed door': 1}, as there is no path "
        "leading to it.\n"
    )


def test_pick_up_is_not_recognised() -> None:
    episode = started(served_room({(3, 3): Ball("red")}, PickupInstr(ObjDesc("ball", "red"))))
    turn = episode.step("pick up red ball 1")
    assert turn.observation.startswith("The action is not recognized. Please check valid actions.\n")
    assert not turn.valid
    assert episode.step("Pickup red ball 1.").stop is StopReason.SUCCESS


def test_an_action_ends_when_the_image_stays_as_it_was() -> None:
    """In a room of 18 x 18 cells the agent, turned to the left, sees nothing, before and after a step."""
    things = {(8, 5): Key("red"), (9, 5): Box("grey")}
    episode = started(served_room(things, goto("key", "red"), agent=(9, 9), size=20))
    way = [LEFT, FORWARD, RIGHT, FORWARD, FORWARD, FORWARD]
    assert episode._options.actions["go to red key 1"] == way
    turn = episode.step("go to red key 1")
    assert turn.observation.startswith("You cannot see any objects within sight.")
    assert (episode._world.agent_pos, episode._world.step_count) == ((8, 9), 2)


def test_what_the_agent_carries_at_the_start_is_shown_on_the_floor_as_well() -> None:
    """minigrid draws the first image of this level before it puts the object into the agent's hands."""
    task = served_task("PutNextS7N4Carrying")
    episode = babyai.make(task, end=End.ON_SUCCESS)
    carrying = "You are carrying a yellow box."
    floor = "There is a yellow box 1 2 steps in front of you and 1 steps to your left. "
    first = episode.reset()
    assert carrying in first
    assert floor in first
    assert "go to yellow box 1" in listed(first)
    episode.step("turn left")
    second = episode.step("turn right").observation
    assert carrying in second
    assert floor not in second


# ---------------------------------------------------------------------------- ends and score


def test_a_quick_success_ends_the_episode() -> None:
    episode = started(served_room({(3, 3): Ball("red")}, goto("ball", "red")))
    turn = episode.step("go to red ball 1")
    assert turn.stop is StopReason.SUCCESS
    assert "\n The task is completed.\nAvailable actions: [" in turn.observation
    assert turn.reward == episode.outcome().score == 1 - 0.9 * 2 / 64
    with pytest.raises(RuntimeError):
        episode.step("turn left")


def test_a_success_that_pays_no_more_than_half_goes_on_and_adds_up() -> None:
    episode = started(served_room({(3, 3): Ball("red")}, goto("ball", "red")))
    turn_to_and_fro(episode, 20)
    turn = episode.step("go to red ball 1")
    assert "The task is completed." in turn.observation
    assert (turn.stop, turn.reward) == (None, 0.0)
    paid = 1 - 0.9 * 42 / 64
    assert episode.outcome().score == paid < 0.5
    assert episode.outcome().success
    # Answers without a primitive action pay the same again, a refusal among them.
    episode.step("check available actions")
    assert episode.total == pytest.approx(2 * paid)
    episode.step("dance")
    assert episode.total == pytest.approx(3 * paid)
    assert episode.outcome().score == 1.0  # cut off
    # One primitive that leaves the goal pays 0, and so do the answers after it.
    episode.step("turn left")
    episode.step("check available actions")
    assert episode.total == pytest.approx(3 * paid)


def test_beyond_the_step_limit_rewards_fall_below_zero() -> None:
    """The limit of 64 primitives does not end the episode: 80 turns and 2 steps pay 1 - 0.9 * 82 / 64."""
    episode = started(served_room({(3, 3): Ball("red")}, goto("ball", "red")))
    turn_to_and_fro(episode, 40)
    assert episode.step("go to red ball 1").stop is None
    assert episode.reward == episode.total == 1 - 0.9 * 82 / 64 < 0
    outcome = episode.outcome()
    assert (outcome.score, outcome.success) == (0.0, False)
    assert outcome.definition == "babyai: score above 0 (rules: agentgym)"


def test_a_goal_met_within_an_action_does_not_count() -> None:
    """The door is open one primitive before the action ends, and the last primitive is a step."""
    episode = started(served_room({(3, 3): Door("red")}, OpenInstr(ObjDesc("door", "red"))))
    turn = episode.step("toggle and go through red closed door 1")
    assert episode._world.agent_pos == (3, 3)
    assert (turn.stop, episode.total) == (None, 0.0)
    assert "completed" not in turn.observation
    assert not episode.outcome().success


def test_a_failure_is_called_completed_and_does_not_end_the_episode() -> None:
    goal = PickupInstr(ObjDesc("ball", "red"), strict=True)
    episode = started(served_room({(3, 5): Key("blue"), (5, 5): Ball("red")}, goal))
    turn = episode.step("pickup blue key 1")
    assert "\n The task is completed." in turn.observation
    assert (turn.stop, episode.total) == (None, 0.0)
    for action in ("turn left", "drop", "turn right"):
        episode.step(action)
    assert episode.step("pickup red ball 1").stop is StopReason.SUCCESS


def test_a_fork_goes_on_from_reward_score_and_image() -> None:
    episode = started(served_room({(3, 3): Ball("red")}, goto("ball", "red")))
    turn_to_and_fro(episode, 20)
    episode.step("go to red ball 1")
    fork = episode.fork()
    for action in ("check", "turn left", "dance", "turn right", "go to red ball 1"):
        assert fork.step(action) == episode.step(action)
        assert (fork.reward, fork.total) == (episode.reward, episode.total)
    before = episode.total
    fork.step("check")
    assert (episode.total, fork.total) == (before, before + fork.reward)


# ---------------------------------------------------------------------------- the expert


@pytest.mark.parametrize("level", babyai.LEVELS)
def test_the_expert_solves_what_it_solves_by_the_fixed_rules(level: str) -> None:
    for number in range(3):
        (fixed,) = babyai.tasks(Split.TRAIN, number, 1, levels=[level])
        (served,) = babyai.tasks(Split.TRAIN, number, 1, levels=[level], rules="agentgym")
        try:
            babyai.demonstrate(fixed, end=End.ON_SUCCESS)
        except DemonstrationError:
            continue
        actions = babyai.demonstrate(served, end=End.ON_SUCCESS)
        episode = babyai.make(served, end=End.ON_SUCCESS)
        episode.reset()
        for action in actions:
            episode.step(action)
        assert episode.outcome().success
