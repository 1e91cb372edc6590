"""BabyAI: observations word for word as AgentGym's, fixed phrases and instructions."""

from __future__ import annotations

import re

import numpy as np
from minigrid.core.world_object import Ball, Box, Goal, Key
from minigrid.envs.babyai.core.verifier import AfterInstr, BeforeInstr

from rlprm.envs import babyai
from rlprm.envs.babyai.environment import BabyAI
from rlprm.envs.babyai.world import World
from rlprm.types import End, Split, StopReason
from tests.toys.babyai import DOWNWARD, UPWARD, goto, listed, original, room, started, task


def scene(observation: str) -> str:
    """An observation without goal and actions."""
    return observation.rpartition("\nAvailable actions: ")[0].rpartition("\n")[2]


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
