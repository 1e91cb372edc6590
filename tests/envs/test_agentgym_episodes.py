"""Environments over HTTP: the same episodes as in process, asked for as AgentGym's clients do."""

from __future__ import annotations

from typing import Any

import pytest

from rlprm import envs
from rlprm.types import End, Outcome, StopReason, Turn
from tests.toys.agentgym_episodes import episode, solution, tasks
from tests.toys.agentgym_server import PROTOCOLS, AgentGymServer, open_world, says, serving


def transcript(env: Any, actions: list[str]) -> list[tuple[str, StopReason | None, bool]]:
    """What an episode shows; rewards and the validity of actions are other matters."""
    turns = [env.step(action) for action in actions]
    return (
        [(env.reset(), None, False)] if not turns else [(t.observation, t.stop, t.reward > 0) for t in turns]
    )


@pytest.mark.parametrize("data_idx", [1, 2, 5])
def test_an_episode_is_the_one_that_the_servers_world_plays(server: AgentGymServer, data_idx: int) -> None:
    task = next(t for t in tasks(server, 10) if t.spec["data_idx"] == data_idx)
    actions = ["nonsense", *solution(server.protocol, data_idx)]
    world, served = (
        open_world(server.protocol, data_idx),
        envs.load(task.environment).make(task, end=End.ON_SUCCESS),
    )
    assert served.reset() == world.reset()
    assert not served.outcome().success
    expected, shown = [world.step(a) for a in actions], [served.step(a) for a in actions]
    assert [(t.observation, t.reward, t.stop) for t in shown] == [
        (t.observation, t.reward, t.stop) for t in expected
    ]
    assert shown[-1].stop is (StopReason.DECLARED if server.protocol == "webshop" else StopReason.SUCCESS)
    assert served.outcome().score == world.outcome().score
    assert served.outcome().success
    assert world.outcome().success
    assert served.outcome().definition.startswith(f"agentgym {server.protocol}: ")
    assert not shown[0].valid or server.protocol == "webshop"
    with pytest.raises(RuntimeError, match="over"):
        served.step("again")


def test_requests_are_agentgyms() -> None:
    said = {
        "babyai": [
            ("/create", None),
            ("/reset", {"id": 1, "data_idx": 1}),
            ("/step", {"id": 1, "action": "x"}),
        ],
        "textcraft": [
            ("/create", {"commands": None, "goal": None}),
            ("/reset", {"id": 1, "data_idx": 1}),
            ("/step", {"id": 1, "action": "x"}),
        ],
        "webshop": [
            ("/create", None),
            ("/reset", {"env_idx": 1, "session_id": 1}),
            ("/observation", {"env_idx": "1"}),
            ("/step", {"env_idx": 1, "action": "search[x]"}),
        ],
    }
    for protocol in PROTOCOLS:
        with serving(protocol) as server:
            env = episode(server)
            env.reset()
            env.step("search[x]" if protocol == "webshop" else "x")
            assert server.requests == said[protocol]


@pytest.mark.parametrize(
    ("protocol", "message", "sent"),
    [
        ("textcraft", "get 1 stick", "get 1 stick"),
        ("textcraft", "Thought:\nhm\n\nAction:\nget 1 stick.\nAnd so on", "get 1 stick"),
        (
            "textcraft",
            " craft 1 stick\tusing\n2 minecraft:planks!  ",
            "craft 1 stick using 2 minecraftplanks",
        ),
        ("textcraft", "Action: Look", "inventory"),
        ("textcraft", "Action:", ""),
        ("textcraft", "Action: a\nAction: b", None),
        ("textcraft", "Action: Action: b", "Action b"),
        ("babyai", "pick up red ball 1", "pickup red ball 1"),
        ("babyai", "Action: pick up red ball 1", "pickup red ball 1"),
        ("babyai", "look", "look"),
        ("babyai", "go to \ud800red", "go to red"),
        ("webshop", "Thought: buy\nAction: \nclick[buy now]</s>", "click[buy now]"),
        ("webshop", "Action: search[a]\nAction: search[b]", "search[b]"),
        ("webshop", "let me search[thing]", "let me search[thing]"),
        ("webshop", "no idea", ""),
        ("webshop", "search[\ud800]", "search[?]"),
    ],
)
def test_messages_are_read_as_agentgyms_clients_do(protocol: str, message: str, sent: str | None) -> None:
    with serving(protocol) as server:
        env = episode(server)
        env.reset()
        turn = env.step(message)
        asked = [body["action"] for path, body in server.requests if path == "/step"]
        assert asked == ([] if sent is None else [sent])
        if sent is None:
            assert turn == Turn(
                "Error: Only one 'Action' is allowed per response. Please adjust your response.", valid=False
            )


def test_a_message_the_client_refuses_is_no_action_of_the_episode(textcraft: AgentGymServer) -> None:
    env = episode(textcraft)
    env.reset()
    env.step("Action: inventory\nAction: inventory")
    copy = env.fork()
    assert env.step("inventory") == copy.step("inventory")
    assert textcraft.count("/step") == 2


@pytest.mark.parametrize(
    ("score", "shown"),
    [
        (0.0, Outcome(0.0, False, "")),
        (0.3, Outcome(0.3, True, "")),
        (1.7, Outcome(1.0, True, "")),
        (-0.2, Outcome(0.0, True, "")),
    ],
)
def test_babyais_score_counts_not_its_reward_and_the_first_one_ends_the_episode(
    score: float, shown: Outcome
) -> None:
    with serving("babyai") as server:
        env = episode(server)
        env.reset()
        server.faults["/step"].append(
            says({"observation": "o", "reward": 0.9, "score": score, "done": False})
        )
        turn = env.step("turn left")
        # No reward before the end, or labels would count it twice. "done" is false after slow successes.
        assert (turn.observation, turn.reward) == ("o", shown.score)
        assert turn.stop == (StopReason.SUCCESS if score else None)
        assert (env.outcome().score, env.outcome().success) == (shown.score, shown.success)


def test_a_success_beyond_the_step_limit_is_a_success_of_score_0() -> None:
    """data_idx 3 (GoToObjS6, seed 0): 2 x 2 free cells, the key diagonal to the agent, a limit of 16.

    After 20 turns the agent goes to the key in two primitives. The server pays 1 - 0.9 * 22 / 16 < 0, does
    not call the episode done, and would add the reward once more with every further answer.
    """
    with serving("babyai") as server:
        task = next(t for t in tasks(server, 10) if t.spec["data_idx"] == 3)
        env = envs.load(task.environment).make(task, end=End.ON_SUCCESS)
        env.reset()
        for _ in range(20):
            assert env.step("turn left").stop is None
        turn = env.step("go to blue key 1")
        assert server.worlds[1].total == 1 - 0.9 * 22 / 16
        assert "The task is completed." in turn.observation
        assert (turn.stop, turn.reward) == (StopReason.SUCCESS, 0.0)
        assert env.outcome() == Outcome(0.0, True, "agentgym babyai: first score other than 0")


def test_a_slow_success_ends_the_episode_with_its_first_reward() -> None:
    """data_idx 3 again: after 8 turns the success pays 1 - 0.9 * 10 / 16 < 0.5, and the server goes on."""
    with serving("babyai") as server:
        task = next(t for t in tasks(server, 10) if t.spec["data_idx"] == 3)
        env = envs.load(task.environment).make(task, end=End.ON_SUCCESS)
        env.reset()
        for _ in range(8):
            env.step("turn left")
        turn = env.step("go to blue key 1")
        assert (turn.stop, turn.reward) == (StopReason.SUCCESS, 1 - 0.9 * 10 / 16)
        assert env.outcome().success


def test_a_done_episode_without_success_is_a_failure(textcraft: AgentGymServer) -> None:
    env = episode(textcraft)
    env.reset()
    textcraft.faults["/step"].append(says({"observation": "o", "reward": 0, "done": True}))
    assert env.step("x").stop is StopReason.FAILURE
    assert env.outcome() == Outcome(0.0, False, "agentgym textcraft: reward 1")
