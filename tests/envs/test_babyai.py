"""BabyAI: the text and rules of AgentGym, and the world held against minigrid itself."""

from __future__ import annotations

import random
import re
from typing import Any

import gymnasium
import numpy as np
import pytest
from minigrid.core.grid import Grid
from minigrid.core.world_object import Ball, Box, Door, Goal, Key
from minigrid.envs.babyai.core import verifier
from minigrid.envs.babyai.core.verifier import (
    AfterInstr,
    BeforeInstr,
    GoToInstr,
    ObjDesc,
    OpenInstr,
    PickupInstr,
    PutNextInstr,
)

from rlprm.envs import babyai
from rlprm.envs.babyai.environment import BabyAI
from rlprm.envs.babyai.levels import pristine_world
from rlprm.envs.babyai.view import look, name_of, positions, thing_at
from rlprm.envs.babyai.world import DROP, FORWARD, LEFT, PICKUP, RIGHT, TOGGLE, World
from rlprm.errors import ConfigError, DemonstrationError
from rlprm.types import End, Split, StopReason, Task

RIGHTWARD, DOWNWARD, LEFTWARD, UPWARD = range(4)
LOCKED, CLOSED, OPEN = {"is_locked": True}, {}, {"is_open": True}


def task(level: str, seed: int = 0) -> Task:
    return Task("babyai", f"{level}-{seed}", Split.TEST, {"level": level, "seed": seed})


def original(level: str, seed: int) -> Any:
    """minigrid's own environment, just reset."""
    version = "v1" if level == "GoToObjS6" else "v0"
    env = gymnasium.make(f"BabyAI-{level}-{version}", disable_env_checker=True).unwrapped
    env.reset(seed=seed)
    return env


def room(
    things: dict[tuple[int, int], Any],
    goal: Any,
    agent: tuple[int, int] = (3, 6),
    direction: int = UPWARD,
    end: End = End.ON_SUCCESS,
    carrying: Any = None,
) -> BabyAI:
    """An episode in a room of 6 x 6 free cells, (1, 1) to (6, 6), made by hand."""
    env = original("GoToRedBallNoDists", 0)
    env.grid = Grid(8, 8)
    env.grid.wall_rect(0, 0, 8, 8)
    for position, thing in things.items():
        env.put_obj(thing, *position)
    env.agent_pos, env.agent_dir, env.carrying = agent, direction, carrying
    env.instrs = goal
    env.mission = goal.surface(env)
    goal.reset_verifier(env)
    return BabyAI(World.of(env), end=end)


def goto(kind: str, color: str) -> GoToInstr:
    return GoToInstr(ObjDesc(kind, color))


def started(episode: BabyAI) -> BabyAI:
    episode.reset()
    return episode


def listed(observation: str) -> list[str]:
    """The available actions as the agent reads them."""
    return re.findall(r'"([^"]*)"', observation.splitlines()[-1])


def scene(observation: str) -> str:
    """An observation without goal and actions."""
    return observation.rpartition("\nAvailable actions: ")[0].rpartition("\n")[2]


# ---------------------------------------------------------------------------- exact text


def test_first_observation_of_task_one_is_agentgyms() -> None:
    """data_idx = 1 (GoToRedBall, seed 0): the agent stands at (6, 5) and looks left.

    From minigrid's map of the room (agent ``<<``)::

        WG            WG
        WG  AR        WG
        WG  KG  BR    WG
        WGAG    KBAG  WG
        WG          <<WG
        WG      KPKY  WG
    """
    (second,) = babyai.tasks(Split.TEST, 1, 1, levels=babyai.LEVELS)
    assert second.id == "GoToRedBall-0"
    assert babyai.make(second, end=End.ON_SUCCESS).reset() == (
        "Your goal: go to the red ball\n"
        "In front of you in this room, you can see several objects: "
        "There is a yellow key 1 1 steps in front of you and 1 steps to your left.  "
        "There is a grey ball 1 1 steps in front of you and 1 steps to your right.  "
        "There is a purple key 1 2 steps in front of you and 1 steps to your left.  "
        "There is a blue key 1 2 steps in front of you and 1 steps to your right.  "
        "There is a red box 1 2 steps in front of you and 2 steps to your right.  "
        "There is a grey ball 2 5 steps in front of you and 1 steps to your right.  "
        "There is a green key 1 4 steps in front of you and 2 steps to your right.  "
        "There is a red ball 1 4 steps in front of you and 3 steps to your right.  "
        "The room has walls around you. You are facing a wall 6 steps away. You are not carrying anything.\n"
        'Available actions: ["turn left", "turn right", "move forward", '
        '"pickup yellow key 1", "pickup grey ball 1", "pickup purple key 1", "pickup blue key 1", '
        '"pickup red box 1", "pickup grey ball 2", "pickup green key 1", "pickup red ball 1", '
        '"go to yellow key 1", "go to grey ball 1", "go to purple key 1", "go to blue key 1", '
        '"go to red box 1", "go to grey ball 2", "go to green key 1", "go to red ball 1", '
        '"check available actions"]'
    )


def test_success_appends_that_the_task_is_completed() -> None:
    episode = started(babyai.make(task("GoToRedBall"), end=End.ON_SUCCESS))
    turn = episode.step("go to red ball 1")
    assert turn.stop is StopReason.SUCCESS
    assert turn.observation.startswith(
        "In front of you in this room, you can see several objects: "
        "There is a red ball 1 right in front of you 1 steps away.  "
    )
    assert "You are not carrying anything.\n The task is completed.\nAvailable actions: [" in turn.observation
    # three forward, turn right, three forward, turn left: eight primitives of 64
    assert turn.reward == episode.outcome().score == 1 - 0.9 * 8 / 64


def test_the_goal_is_only_in_the_first_observation() -> None:
    episode = babyai.make(task("GoToRedBall"), end=End.DECLARED)
    assert episode.reset().startswith("Your goal: ")
    assert "Your goal" not in episode.step("turn left").observation


def test_then_and_after_you_become_and() -> None:
    things = {(1, 1): Ball("red"), (6, 1): Key("blue")}
    first, second = goto("ball", "red"), goto("key", "blue")
    for sequence in (BeforeInstr(first, second), AfterInstr(first, second)):
        line = room(things, sequence).reset().splitlines()[0]
        comma = "," if isinstance(sequence, BeforeInstr) else ""
        assert line == f"Your goal: go to the red ball{comma} and go to the blue key"


def test_the_facing_line_names_the_nearest_wall_or_box_ahead() -> None:
    assert "You are facing a box 2 steps away. " in room({(3, 4): Box("grey")}, goto("box", "grey")).reset()
    assert (
        "You are facing a wall 6 steps away. " in room({(3, 4): Ball("grey")}, goto("ball", "grey")).reset()
    )


def test_only_walls_in_sight() -> None:
    # the ball is behind the agent
    episode = room({(1, 1): Ball("red")}, goto("ball", "red"), agent=(4, 4), direction=DOWNWARD)
    assert scene(episode.reset()) == (
        "In front of you in this room, you can see several objects: "
        "The room has walls around you. You are facing a wall 3 steps away. You are not carrying anything."
    )


def test_nothing_in_sight() -> None:
    # a room of 18 x 18 free cells, seen from its middle
    env = original("OneRoomS20", 0)
    env.grid.set(*next(p for p in np.ndindex(20, 20) if (env.grid.get(*p) or Goal()).type == "ball"), None)
    env.agent_pos, env.agent_dir = (9, 9), UPWARD
    observation = BabyAI(World.of(env), end=End.ON_SUCCESS).reset()
    assert scene(observation) == (
        "You cannot see any objects within sight."
        "The room has walls around you. You are not carrying anything."
    )
    assert listed(observation) == ["turn left", "turn right", "move forward", "check available actions"]


def test_objects_equally_far_away_are_ordered_by_depth_then_from_left_to_right() -> None:
    things = {(2, 5): Ball("red"), (4, 5): Ball("blue"), (3, 4): Key("grey"), (1, 6): Ball("green")}
    observation = room(things, goto("key", "grey")).reset()
    names = re.findall(r"There is a (\w+ \w+) \d", observation)
    assert names == ["grey key", "red ball", "blue ball", "green ball"]


def test_objects_of_one_name_are_numbered_nearest_first() -> None:
    things = {(3, 2): Ball("red"), (2, 5): Ball("red"), (4, 5): Key("red")}
    observation = room(things, goto("key", "red")).reset()
    assert re.findall(r"There is a (red \w+ \d)", observation) == ["red ball 1", "red key 1", "red ball 2"]


# ---------------------------------------------------------------------------- actions


def test_check_lists_the_actions() -> None:
    episode = started(room({(3, 3): Ball("red")}, goto("ball", "red")))
    for question in ("check available actions", "please Check!"):
        assert episode.step(question).observation == (
            "You can take the following actions: turn left, turn right, move forward, "
            "pickup red ball 1, go to red ball 1, check available actions\n"
            'Available actions: ["turn left", "turn right", "move forward", '
            '"pickup red ball 1", "go to red ball 1", "check available actions"]'
        )
    assert episode.outcome().score == 0.0


@pytest.mark.parametrize(
    ("action", "answer"),
    [
        ("", "No change in state."),
        ("  \n ", "No change in state."),
        ("!?*", "No change in state."),
        ("dance", "The action is not recognized. Please check valid actions."),
        ("go to red ball 99", "The action is not recognized. Please check valid actions."),
        ("finish", "The action is not recognized. Please check valid actions."),
        ("drop", "You cannot drop the object, as you are not carrying anything."),
    ],
)
def test_what_is_not_an_action_is_answered_without_a_step(action: str, answer: str) -> None:
    episode = started(room({(3, 3): Ball("red")}, goto("ball", "red")))
    assert episode.step(action).observation.splitlines()[0] == answer
    assert f"step_count {episode._world.step_count}" == "step_count 0"


@pytest.mark.parametrize(
    "spelling",
    ["pickup red ball 1", "pick up red ball 1", " Pick  UP\nred\tball 1. ", "**pickup red ball 1**"],
)
def test_spellings_of_an_action(spelling: str) -> None:
    episode = started(room({(3, 3): Ball("red")}, PickupInstr(ObjDesc("ball", "red"))))
    assert episode.step(spelling).stop is StopReason.SUCCESS


def test_go_to_ends_next_to_the_object_and_facing_it() -> None:
    episode = started(room({(5, 3): Key("red"), (1, 1): Ball("blue")}, goto("ball", "blue")))
    turn = episode.step("go to red key 1")
    assert "There is a red key 1 right in front of you 1 steps away. " in turn.observation
    # forward comes first in the search: three forward, turn right, one forward
    assert (episode._world.agent_pos, episode._world.step_count) == ((4, 3), 5)
    again = episode.step("go to red key 1")
    assert again.observation.startswith("No change in state.\nAvailable actions: [")
    assert episode._world.step_count == 5


def test_a_way_out_of_reach_is_answered() -> None:
    ring = {(2, 1): Box("grey"), (2, 2): Box("grey"), (1, 2): Box("grey")}
    episode = started(room({(1, 1): Ball("red"), **ring}, goto("ball", "red"), agent=(3, 6)))
    observation = episode.step("check").observation
    assert "go to red ball 1" not in observation
    for verb in ("go to", "pickup"):
        answer = episode.step(f"{verb} red ball 1").observation
        assert answer.startswith(f"You cannot {verb} red ball 1, as there is no path leading to it.\n")


def test_numbers_in_actions_are_those_of_the_description() -> None:
    """The nearer of two red balls is walled in: the other one stays number 2 (AgentGym calls it 1)."""
    ring = {(2, 3): Box("grey"), (1, 4): Box("grey"), (1, 2): Box("grey")}
    episode = room({(1, 3): Ball("red"), (6, 1): Ball("red"), **ring}, goto("ball", "red"), agent=(3, 5))
    observation = episode.reset()
    assert "go to red ball 1" not in listed(observation)
    assert "There is a red ball 2 4 steps in front of you and 3 steps to your right. " in observation
    episode.step("go to red ball 2")
    assert episode._world.front_pos == (6, 1)


def test_move_forward_is_absent_only_at_walls_and_boxes() -> None:
    facing_box = room({(3, 5): Box("red")}, goto("box", "red"))
    assert "move forward" not in listed(facing_box.reset())
    refusal = facing_box.step("move forward").observation
    assert refusal.startswith("There is a barrier in front of you, you can't move forward.\n")
    # At a ball it is offered, costs a primitive, and the answer is the same view again.
    facing_ball = room({(3, 5): Ball("red"), (1, 1): Key("red")}, goto("key", "red"))
    first = facing_ball.reset()
    assert "move forward" in listed(first)
    assert first.endswith(facing_ball.step("move forward").observation)
    assert facing_ball._world.step_count == 1


def test_an_action_stops_at_the_first_primitive_that_changes_nothing() -> None:
    """A shut door does not block the search, so the way to the key leads through it and ends there."""
    wall = {(x, 3): Box("grey") for x in (1, 2, 4, 5, 6)}
    episode = started(
        room({(3, 1): Key("red"), (3, 3): Door("blue"), **wall}, goto("key", "red"), agent=(3, 6))
    )
    episode._world.set(3, 3, None)
    episode._perceive()
    assert "go to red key 1" in episode._options.actions
    episode._world.set(3, 3, Door("blue"))  # it falls shut
    episode.step("go to red key 1")
    assert episode._world.agent_pos == (3, 4)
    assert episode._world.step_count == 3  # two moves and the one that failed


def test_carrying() -> None:
    episode = started(room({(3, 5): Key("red"), (1, 1): Ball("blue")}, goto("ball", "blue")))
    turn = episode.step("pickup red key 1")
    assert "You are carrying a red key." in turn.observation
    assert "There is a red key" not in turn.observation
    assert not [action for action in listed(turn.observation) if action.startswith("pickup")]
    assert "drop" in listed(turn.observation)
    turn = episode.step("drop")
    assert "There is a red key 1 right in front of you 1 steps away. " in turn.observation
    assert "You are not carrying anything." in turn.observation


def test_drop_needs_a_free_cell_ahead() -> None:
    things = {(3, 5): Key("red"), (3, 4): Ball("blue")}
    episode = started(room(things, goto("ball", "blue"), end=End.DECLARED))
    episode.step("pickup red key 1")
    episode.step("move forward")
    answer = episode.step("drop").observation
    assert answer.startswith("You cannot drop the object, as there is already an object in front of you.\n")


def door_room(state: dict[str, bool], **settings: Any) -> BabyAI:
    """A red door at (3, 3) in a wall of boxes across the room, and a ball near the agent."""
    boxes = {(x, 3): Box("grey") for x in (1, 2, 4, 5, 6)}
    things = {(3, 3): Door("red", **state), (6, 6): Ball("blue"), **boxes}
    return room(things, goto("ball", "blue"), **settings)


def test_closed_door() -> None:
    episode = door_room(CLOSED)
    observation = episode.reset()
    assert "There is a red closed door 1 right in front of you 3 steps away. " in observation
    assert "toggle and go through red closed door 1" in listed(observation)
    assert "toggle" not in listed(observation)
    answer = episode.step("go through red closed door 1").observation
    assert answer.startswith(
        "You cannot go through red closed door 1, as it is closed. You should toggle it first."
    )
    assert "toggle" in listed(episode.step("go to red closed door 1").observation)
    assert (
        "There is a red open door 1 right in front of you 1 steps away. "
        in episode.step("toggle").observation
    )


def test_toggle_and_go_through_ends_in_the_doorway() -> None:
    episode = started(door_room(CLOSED))
    episode.step("toggle and go through red closed door 1")
    assert episode._world.agent_pos == (3, 3)
    assert episode._world.step_count == 4


def test_open_door() -> None:
    episode = door_room(OPEN)
    actions = listed(episode.reset())
    assert "go through red open door 1" in actions
    assert "toggle and go through red open door 1" not in actions
    episode.step("go through red open door 1")
    assert episode._world.agent_pos == (3, 3)


@pytest.mark.parametrize(
    ("carrying", "reason"),
    [
        (None, "as you are not carrying a key."),
        (Ball("red"), "as you are not carrying a key."),
        (Key("blue"), "as the color of the key you are carrying does not match the color of door."),
    ],
)
def test_locked_door_without_its_key(carrying: Any, reason: str) -> None:
    episode = started(door_room(LOCKED, carrying=carrying))
    answer = episode.step("toggle and go through red locked door 1").observation
    assert answer.startswith(f"You cannot toggle and go through red locked door 1, {reason}\n")


def test_locked_door_with_its_key() -> None:
    episode = started(door_room(LOCKED, carrying=Key("red")))
    episode.step("toggle and go through red locked door 1")
    assert episode._world.agent_pos == (3, 3)


def test_go_to_goal_ends_on_it() -> None:
    things = {(1, 2): Goal(), (6, 6): Ball("blue")}
    episode = room(things, goto("ball", "blue"))
    actions = listed(episode.reset())
    assert "go to goal" in actions
    assert not [action for action in actions if "green" in action]
    episode.step("go to goal")
    assert episode._world.agent_pos == (1, 2)


# ---------------------------------------------------------------------------- ends, reward and success


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


# ---------------------------------------------------------------------------- tasks and levels


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
    assert tasks[39].spec == {"level": "BossLevelNoUnlock", "seed": 0}
    assert tasks[85].spec == {"level": babyai.LEVELS[5], "seed": 2}


def test_splits_keep_to_their_seeds() -> None:
    def seeds(split: Split) -> list[int]:
        return [t.spec["seed"] for t in babyai.tasks(split, 0, 4, levels=["GoToDoor", "Open"])]

    assert seeds(Split.TEST) == [0, 0, 1, 1]
    assert seeds(Split.DEV) == [100_000, 100_000, 100_001, 100_001]
    assert seeds(Split.TRAIN) == [1_000_000, 1_000_000, 1_000_001, 1_000_001]
    assert len(babyai.tasks(Split.TEST, 199_990, 10, levels=["GoToDoor", "Open"])) == 10
    with pytest.raises(ConfigError, match="200000 tasks"):
        babyai.tasks(Split.TEST, 199_990, 11, levels=["GoToDoor", "Open"])


@pytest.mark.parametrize("levels", [["GoToMars"], [], "GoToDoor", ["Open", "Open"]])
def test_impossible_levels(levels: Any) -> None:
    with pytest.raises(ConfigError):
        babyai.tasks(Split.TRAIN, 0, 1, levels=levels)


def test_an_unknown_level_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"GoToLocalS8N7.*BossLevelNoUnlock"):
        babyai.tasks(Split.TRAIN, 0, 1, levels=["GoToMars"])


@pytest.mark.parametrize("spec", [{}, {"level": "GoToMars", "seed": 0}, {"level": "Open", "seed": -1}])
def test_a_foreign_task_is_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        babyai.make(Task("babyai", "x", Split.TEST, spec), end=End.DECLARED)


@pytest.mark.parametrize("level", babyai.LEVELS)
def test_every_level_starts(level: str) -> None:
    observation = babyai.make(task(level), end=End.DECLARED).reset()
    assert re.fullmatch(r"Your goal: .*\n.*\nAvailable actions: \[.*\]", observation)


# ---------------------------------------------------------------------------- against minigrid itself

COMPARED = [
    "GoToLocalS8N7",
    "GoToSeqS5R2",
    "Open",
    "OpenRedBlueDoorsDebug",
    "PickupDistDebug",
    "PutNextLocalS6N4",
    "PutNextS7N4Carrying",
    "UnlockLocalDist",
    "KeyInBox",
    "BlockedUnlockPickup",
    "MiniBossLevel",
]
MOVES = [LEFT, RIGHT, FORWARD, FORWARD, FORWARD, PICKUP, PICKUP, DROP, TOGGLE, TOGGLE]


def wander(level: str, seed: int, steps: int) -> Any:
    """Random primitive actions in minigrid and in a World at the same time."""
    env, world = original(level, seed), pristine_world(level, seed).fork()
    rng = random.Random(f"{level}-{seed}")
    ended = False
    yield env, world
    for _ in range(min(steps, env.max_steps)):
        action = rng.choice(MOVES)
        _, reward, terminated, _, _ = env.step(action)
        world.act(action)
        if not ended:
            assert terminated == (world.verdict is not None)
            assert reward == world.score
            ended = terminated
        yield env, world


def describe(thing: Any) -> tuple[str, ...] | None:
    return None if thing is None else (name_of(thing), *(describe(getattr(thing, "contains", None)) or ()))


@pytest.mark.parametrize("level", COMPARED)
def test_the_world_follows_minigrid(level: str) -> None:
    for seed in range(3):
        for env, world in wander(level, seed, 150):
            assert tuple(env.agent_pos) == world.agent_pos
            assert env.agent_dir == world.agent_dir
            assert env.step_count == world.step_count
            assert describe(env.carrying) == describe(world.carrying)
            assert list(map(describe, env.grid.grid)) == [
                describe(world.get(x, y)) for y in range(world.height) for x in range(world.width)
            ]
            assert world.things == {
                i: thing for i, thing in enumerate(world.cells) if thing is not None and thing.type != "wall"
            }


@pytest.mark.parametrize("level", COMPARED)
def test_what_is_visible_is_what_minigrid_shows(level: str) -> None:
    for seed in range(3):
        for env, world in wander(level, seed, 100):
            grid, mask = env.gen_obs_grid()
            view = look(world)
            assert view.visible == sum(1 << int(y * 7 + x) for x, y in np.argwhere(mask))
            shown = {
                y * 7 + x: name_of(grid.get(x, y))
                for x, y in map(tuple, np.argwhere(mask))
                if (x, y) != (3, 6) and grid.get(x, y) is not None and grid.get(x, y).type != "wall"
            }
            assert {seen.cell: seen.name for seen in view.things} == shown
            assert all(name_of(thing_at(world, cell)) == name for cell, name in shown.items())


def test_positions_of_view_cells_are_minigrids() -> None:
    for env, world in wander("GoToSeqS5R2", 1, 60):
        for cell in range(49):
            ((x, y),) = positions(world, 1 << cell)
            assert env.get_view_coords(x, y) == (cell % 7, cell // 7)


def test_the_verifier_shortcut_decides_like_minigrids() -> None:
    assert not verifier.use_done_actions  # the one setting of minigrid that would change the rules
    for env, world in wander("GoToObjDoor", 3, 200):
        facing = any(np.array_equal(place, env.front_pos) for place in env.instrs.desc.obj_poss)
        assert (world.instrs.verify_action(FORWARD) == "success") == facing


# ---------------------------------------------------------------------------- copies


def snapshot(world: World) -> Any:
    cells = [describe(thing) for thing in world.cells]
    return (
        cells,
        world.agent_pos,
        world.agent_dir,
        describe(world.carrying),
        world.step_count,
        world.verdict,
        world.fulfilled,
        world.score,
    )


@pytest.mark.parametrize("level", COMPARED)
def test_a_fork_acts_like_the_original_and_leaves_it_alone(level: str) -> None:
    rng = random.Random(level)
    world = pristine_world(level, 5).fork()
    for _ in range(6):
        fork, before = world.fork(), snapshot(world)
        actions = rng.choices(MOVES, k=20)
        changes = [fork.act(action) for action in actions]
        assert snapshot(world) == before
        assert [world.act(action) for action in actions] == changes
        assert snapshot(fork) == snapshot(world)


def test_a_fork_keeps_apart_what_was_apart_and_together_what_was_together() -> None:
    goal = PutNextInstr(ObjDesc("box", "red"), ObjDesc("ball", "blue"))
    things = {(3, 5): Box("red", Key("green")), (5, 5): Ball("blue")}
    world = room(things, goal)._start.fork()
    world.act(PICKUP)
    fork = world.fork()
    assert fork.carrying is not world.carrying
    assert fork.carrying is fork.instrs.desc_move.obj_set[0] is fork.instrs.preCarrying
    assert fork.carrying.contains is not world.carrying.contains
    assert fork.instrs.desc_fixed.obj_set[0] is fork.get(5, 5)
    assert fork.instrs.env is fork
    assert world.instrs.env is world


def test_a_world_from_the_cache_equals_a_fresh_one() -> None:
    def transcript() -> list[str]:
        episode = babyai.make(task("GoToSeqS5R2", 3), end=End.DECLARED)
        first = episode.reset()
        return [
            first,
            *(episode.step(a).observation for a in ("turn left", "move forward", "turn left", "check")),
        ]

    pristine_world.cache_clear()
    fresh = transcript()
    for seed in range(3):  # the generator is shared between seeds
        pristine_world("GoToSeqS5R2", seed)
    assert transcript() == fresh
    pristine_world.cache_clear()
    assert transcript() == fresh


@pytest.mark.parametrize("level", ["GoToLocalS8N7", "BossLevel", "SynthLoc"])
def test_a_generator_used_before_makes_the_same_worlds(level: str) -> None:
    pristine_world.cache_clear()
    for seed in (4, 2, 9, 4):
        env, world = original(level, seed), pristine_world(level, seed)
        assert env.mission == world.mission
        assert env.max_steps == world.max_steps
        assert list(map(describe, env.grid.grid)) == [
            describe(world.get(x, y)) for y in range(world.height) for x in range(world.width)
        ]


# ---------------------------------------------------------------------------- expert and phrases


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


COLOURS = {"red", "green", "blue", "purple", "yellow", "grey"}
VARIABLE = COLOURS | {"ball", "box", "key", "door", "wall", "open", "closed", "locked"}


def test_fixed_phrases_hold_no_variable_word() -> None:
    for phrase in babyai.FIXED_PHRASES:
        words = set(re.findall(r"\w+", phrase))
        if phrase.startswith(("open ", ", as ")):  # the verb of a goal; a reason that is always the same
            continue
        assert not words & VARIABLE, phrase
        assert not re.search(r"\d", phrase)


def test_text_is_made_of_fixed_phrases_and_single_words() -> None:
    longest_first = sorted(babyai.FIXED_PHRASES, key=len, reverse=True)
    phrase = re.compile("|".join(map(re.escape, longest_first)))
    texts = []
    for t in babyai.tasks(Split.TRAIN, 0, 30, levels=["GoToObjDoor", "PickupLoc", "OpenDoorLoc"]):
        episode = babyai.make(t, end=End.DECLARED)
        texts.append(episode.reset())
        for action in babyai.demonstrate(t, end=End.DECLARED):
            texts += [action, episode.step(action).observation]
    rest = {word for text in texts for piece in phrase.split(text) for word in re.split(r"[ .]", piece)}
    assert {word for word in rest if not word.isdigit()} <= VARIABLE | {""}


def test_finish_is_explained_where_it_exists() -> None:
    for style in ("short", "agentgym"):
        for end in End:
            instructions = babyai.opening(end=end, style=style)[0]["content"]
            assert ("finish" in instructions) == (end is End.DECLARED)
    acknowledgement = babyai.opening(end=End.ON_SUCCESS, style="agentgym")[1]["content"]
    assert acknowledgement == "OK. I'll follow your instructions and try my best to solve the task."
