"""BabyAI: the actions of AgentGym, made of minigrid's."""

from __future__ import annotations

from typing import Any

import pytest
from minigrid.core.world_object import Ball, Box, Door, Goal, Key
from minigrid.envs.babyai.core.verifier import ObjDesc, PickupInstr

from rlprm.envs.babyai.environment import BabyAI
from rlprm.types import End, StopReason
from tests.toys.babyai import goto, listed, room, started

LOCKED, CLOSED, OPEN = {"is_locked": True}, {}, {"is_open": True}


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
