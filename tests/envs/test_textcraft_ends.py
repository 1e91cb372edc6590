"""TextCraft: ends, success and copies."""

from __future__ import annotations

import pytest

from rlprm.envs import textcraft
from rlprm.types import End, StopReason
from tests.toys.textcraft import TO_THE_TORCH, answers, episode


def test_on_success_ends_with_the_goal() -> None:
    env = episode(end=End.ON_SUCCESS)
    *before, last = [env.step(action) for action in TO_THE_TORCH]
    assert [(turn.reward, turn.stop) for turn in before] == [(0.0, None)] * 4
    assert (last.observation, last.reward, last.stop) == (
        "Crafted 4 minecraft:torch",
        1.0,
        StopReason.SUCCESS,
    )
    assert env.outcome().success
    assert env.outcome().score == 1.0
    with pytest.raises(RuntimeError, match="over"):
        env.step("inventory")


def test_finish_is_no_action_where_the_environment_ends_the_episode() -> None:
    turn = episode(end=End.ON_SUCCESS).step("finish")
    assert (turn.observation, turn.stop) == ("Could not execute finish", None)


def test_declared_announces_nothing_and_waits_for_finish() -> None:
    env = episode()
    turns = [env.step(action) for action in [*TO_THE_TORCH, "inventory"]]
    assert all((turn.reward, turn.stop) == (0.0, None) for turn in turns)
    assert turns[4].observation == "Crafted 4 minecraft:torch"
    end = env.step("finish")
    assert (end.observation, end.reward, end.stop) == ("You have finished.", 1.0, StopReason.DECLARED)
    assert env.outcome().success


def test_a_goal_that_was_used_up_again_counts_as_crafted() -> None:
    env = episode("stick")
    answers(env, "get 4 oak log", *["craft 4 oak planks using 1 oak log"] * 2)
    assert not env.outcome().success
    answers(env, *["craft 4 stick using 2 oak planks"] * 2, "craft 3 ladder using 7 stick")
    assert env.outcome().success


def test_finishing_too_early_fails() -> None:
    env = episode()
    answers(env, *TO_THE_TORCH[:-1])
    turn = env.step("finish")
    assert (turn.reward, turn.stop, env.outcome().success) == (0.0, StopReason.DECLARED, False)


def test_a_fork_holds_its_own_things() -> None:
    env = episode()
    answers(env, "get 1 coal")
    fork = env.fork()
    answers(fork, "get 2 coal")
    assert answers(env, "inventory") == ["Inventory: [coal] (1) "]
    assert answers(fork, "inventory") == ["Inventory: [coal] (3) "]


def test_finish_is_explained_where_it_exists() -> None:
    for style in ("short", "agentgym"):
        for end in End:
            instructions = textcraft.opening(end=end, style=style)[0]["content"]
            assert ("finish" in instructions) == (end is End.DECLARED)
    acknowledgement = textcraft.opening(end=End.ON_SUCCESS, style="agentgym")[1]["content"]
    assert acknowledgement == "OK. I'll follow your instructions and try my best to solve the task."
