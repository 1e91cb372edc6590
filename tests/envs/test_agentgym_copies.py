"""Environments over HTTP: copies of an episode."""

from __future__ import annotations

import threading

import pytest

from rlprm.envs.agentgym.connection import DroppedError, ServerError
from tests.toys.agentgym_episodes import episode
from tests.toys.agentgym_server import AgentGymServer, drops, says

SHOPPING = ["search[boots]", "click[nonsense]", "click[next >]", "click[back to search]"]


def test_a_copy_asks_nothing_until_it_acts_and_the_first_to_act_keeps_the_session(
    server: AgentGymServer,
) -> None:
    actions = {"babyai": ["turn left"] * 4, "textcraft": ["inventory", "get 1 oak log", "inventory"]}.get(
        server.protocol, SHOPPING
    )
    env = episode(server)
    env.reset()
    env.step(actions[0])
    asked = len(server.requests)
    copies = [env.fork() for _ in range(3)]
    assert copies[0].outcome() == env.outcome()
    assert len(server.requests) == asked
    for copy in copies[:2]:
        copy.step(actions[1])
    assert server.created == 2
    whole = [env.step(action) for action in actions[1:]]  # a third session; the first is the first copy's
    assert server.created == 3
    assert [copies[2].step(action) for action in actions[1:]] == whole
    assert [copies[0].step(action) for action in actions[2:]] == whole[1:]
    assert [copies[1].step(action) for action in actions[2:]] == whole[1:]


def test_copies_that_act_at_one_time_do_not_meet(textcraft: AgentGymServer) -> None:
    textcraft.delay = 0.01
    env = episode(textcraft)
    env.reset()
    env.step("get 2 oak log")
    copies = [env.fork() for _ in range(8)]
    found: dict[int, str] = {}

    def act(number: int) -> None:
        copies[number].step(f"get {number + 1} birch log")
        found[number] = copies[number].step("inventory").observation

    threads = [threading.Thread(target=act, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: f"Inventory: [oak log] (2) [birch log] ({n + 1}) " for n in range(8)}
    assert textcraft.created == 8


@pytest.mark.parametrize(("path", "what"), [("/reset", "reset"), ("/step", "action 1, 'inventory',")])
def test_a_server_that_is_not_deterministic_is_found_out(
    textcraft: AgentGymServer, path: str, what: str
) -> None:
    env = episode(textcraft)
    env.reset()
    env.step("inventory")
    copy = env.fork()
    env.step("inventory")
    textcraft.faults[path].append(says({"observation": "something else", "reward": 0, "done": False}))
    with pytest.raises(ServerError, match=f"the textcraft server is not deterministic: {what} of data_idx 1"):
        copy.step("inventory")


def test_a_copy_of_an_episode_whose_session_broke_replays_it(textcraft: AgentGymServer) -> None:
    env = episode(textcraft)
    env.reset()
    env.step("get 1 oak log")
    copy = env.fork()
    textcraft.faults["/step"].append(drops)
    with pytest.raises(DroppedError):
        env.step("inventory")
    assert copy.step("inventory").observation == "Inventory: [oak log] (1) "
