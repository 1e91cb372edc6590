"""Environments over HTTP: sessions are used again, kept apart and closed."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rlprm import envs
from rlprm.envs import agentgym
from rlprm.envs.agentgym import babyai, sessions
from rlprm.envs.agentgym.connection import ServerError
from rlprm.types import End, Task
from tests.toys.agentgym_episodes import Fault, episode, solution, tasks
from tests.toys.agentgym_server import AgentGymServer, drops, open_world, says, serving, sleeps

ROOT = Path(__file__).parents[2]


def test_a_session_serves_one_episode_after_another(server: AgentGymServer) -> None:
    for _ in range(5):
        env = episode(server)
        env.reset()
        env.step("inventory")
        del env
    finished = episode(server)
    finished.reset()
    for action in solution(server.protocol, 1):
        finished.step(action)
    with episode(server) as other:  # the finished one is still there, without a session
        other.reset()
    assert (server.created, server.count("/reset")) == (1, 7)


def test_episodes_at_one_time_have_sessions_of_their_own(server: AgentGymServer) -> None:
    several = [episode(server) for _ in range(3)]
    for env in several:
        env.reset()
    assert server.created == 3
    env = several.pop()
    env.circle = env  # type: ignore[attr-defined]
    several.clear()
    del env
    gc.collect()
    again = [episode(server) for _ in range(3)]
    for env in again:
        env.reset()
    assert server.created == 3


def test_a_session_is_free_again_after_an_exception(textcraft: AgentGymServer) -> None:
    def fail() -> None:
        env = episode(textcraft)
        env.reset()
        raise ValueError("of the caller")

    for _ in range(3):
        with pytest.raises(ValueError, match="of the caller"):
            fail()
    assert textcraft.created == 1


@pytest.mark.parametrize("fault", [drops, sleeps(1.0), says({"error": "broken"})])
def test_a_session_whose_request_failed_is_closed_and_never_used_again(
    textcraft: AgentGymServer, fault: Fault
) -> None:
    env = episode(textcraft, timeout=0.3)
    env.reset()
    textcraft.faults["/step"].append(fault)
    with pytest.raises(ServerError):
        env.step("inventory")
    del env
    for _ in range(2):
        other = episode(textcraft, timeout=0.3)
        other.reset()
        del other
    assert textcraft.created == 2
    assert textcraft.closed == [1]


def fails_to_begin(server: AgentGymServer, data_idx: int) -> None:
    task = tasks(server, data_idx)[-1]
    with pytest.raises(ServerError):
        envs.load(task.environment).make(task, end=End.ON_SUCCESS).reset()
    gc.collect()  # the traceback holds the session


def test_a_task_that_cannot_be_reset_leaves_no_session_behind(server: AgentGymServer) -> None:
    server.shop_closes = True
    server.bad_indices = {9}
    for _ in range(3):
        several = [episode(server) for _ in range(8)]
        for env in several:
            env.reset()
        several.clear()
        del env
        fails_to_begin(server, 9)
    agentgym.close_sessions()
    assert server.worlds == {}
    # Eight, and each failure spoils a session of them, which the next round replaces, and a new one.
    assert server.created == 8 + 1 + 2 + 2
    assert sorted(server.closed) == list(range(1, 14))


def test_a_task_that_cannot_be_reset_is_tried_in_one_new_session(server: AgentGymServer) -> None:
    server.shop_closes = True
    server.bad_indices = {9}
    kept, env = episode(server), episode(server)
    kept.reset()
    env.reset()
    del env
    for failures in (1, 2, 3):
        fails_to_begin(server, 9)
        assert server.created == 2 + failures
        assert len(server.worlds) <= 3
    assert server.count("/reset") == 2 + 2 + 1 + 1
    assert kept.step("inventory").stop is None


def test_a_session_that_broke_is_replaced_and_the_other_idle_ones_are_used(server: AgentGymServer) -> None:
    server.shop_closes = True
    several = [episode(server) for _ in range(4)]
    for env in several:
        env.reset()
    several.clear()
    del env
    server.faults["/reset"].append(says({"error": "broken"}, 500))
    several = [episode(server) for _ in range(4)]
    for env in several:
        assert env.reset() == open_world(server.protocol, 1).reset()
    assert (server.created, len(server.closed)) == (5, 1)
    several.clear()
    del env
    agentgym.close_sessions()
    assert server.worlds == {}


def test_numbers_that_are_drawn_say_nothing_of_a_new_start() -> None:
    with serving("webshop") as shop:
        shop.shop_closes = True
        numbers = iter([50, 70, 30, 20, 10])

        def draw() -> int:
            number = next(numbers)
            shop.worlds[number] = None
            return number

        shop._create = draw  # type: ignore[method-assign]
        several = [episode(shop) for _ in range(3)]
        for env in several:
            env.reset()
        several.clear()
        del env
        shop.faults["/reset"].append(says("broken", 500))
        several = [episode(shop) for _ in range(3)]
        for env in several:
            env.reset()
        assert len(shop.worlds) == 3
        several.clear()
        del env
        agentgym.close_sessions()
        assert shop.worlds == {}


def test_a_restarted_servers_sessions_are_left_to_those_who_opened_them(textcraft: AgentGymServer) -> None:
    """The numbers of idle sessions, and of one that is to be closed, are others' when the server is back."""
    several = [episode(textcraft) for _ in range(5)]
    for env in several:
        env.reset()
    textcraft.faults["/step"].append(drops)
    with pytest.raises(ServerError):
        several[0].step("inventory")
    del env
    while several:
        del several[0]  # the last one is used again first
    textcraft.worlds.clear()
    textcraft.created = 0
    others = [textcraft._create() for _ in range(3)]
    env = episode(textcraft)
    assert env.reset() == open_world("textcraft", 1).reset()
    assert textcraft.created == 4
    for _ in range(3):
        episode(textcraft).reset()
    del env
    agentgym.close_sessions()
    assert textcraft.worlds == dict.fromkeys(others)  # neither reset nor closed


def test_what_could_not_be_closed_is_closed_in_the_end(server: AgentGymServer) -> None:
    server.shop_closes = True
    env = episode(server)
    env.reset()
    server.faults["/step"].append(drops)
    with pytest.raises(ServerError):
        env.step("inventory")
    del env
    gc.collect()
    server.faults["/close"].extend([says("busy", 503), drops])
    for _ in range(3):
        episode(server).reset()
    assert server.count("/close") == 1  # an episode waits for it once at most
    agentgym.close_sessions()
    agentgym.close_sessions()
    assert server.worlds == {}


def test_a_server_that_was_started_again_gets_new_sessions(server: AgentGymServer) -> None:
    env = episode(server)
    env.reset()
    del env
    server.worlds.clear()
    assert episode(server).reset() == open_world(server.protocol, 1).reset()
    assert server.created == 2


def test_a_restart_mixes_no_episodes_up(server: AgentGymServer) -> None:
    """A server that was started again counts from the start: old numbers stand for other episodes."""
    before = [episode(server) for _ in range(4)]
    for env in before:
        env.reset()
    in_use = before[0]
    before.clear()  # three are free again, one goes on
    del env
    server.worlds.clear()
    server.created = 0
    server.delay = 0.01
    wrong: list[str] = []

    def play(task: Task) -> None:
        env = envs.load(task.environment).make(task, end=End.ON_SUCCESS)
        world = open_world(server.protocol, task.spec["data_idx"])
        if env.reset() != world.reset():
            wrong.append("reset")
        for action in ("turn left", "get 1 oak log", "inventory", "search[boots]"):
            if env.step(action).observation != world.step(action).observation:
                wrong.append(action)

    threads = [threading.Thread(target=play, args=(task,)) for task in tasks(server, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    with pytest.raises(ServerError):
        in_use.step("inventory")


def test_the_holder_of_a_number_that_is_given_out_again_is_told(textcraft: AgentGymServer) -> None:
    env = episode(textcraft)
    env.reset()
    textcraft.worlds.clear()
    textcraft.created = 0
    other = episode(textcraft)
    other.reset()
    with pytest.raises(ServerError, match="was started again: session 1 is lost"):
        env.step("get 1 oak log")
    assert other.step("inventory").observation == "Inventory: You are not carrying anything."
    del env, other
    gc.collect()
    agentgym.close_sessions()
    assert textcraft.worlds == {}


def test_sessions_of_a_server_that_cannot_close_are_kept() -> None:
    with serving("webshop") as shop:
        for _ in range(3):
            env = episode(shop)
            env.reset()
            del env
            agentgym.close_sessions()
        assert (shop.created, shop.count("/close")) == (1, 1)


def test_sessions_are_closed_when_asked_except_those_in_use(server: AgentGymServer) -> None:
    several = [episode(server) for _ in range(4)]
    for env in several:
        env.reset()
    kept = several.pop()
    several.clear()
    del env
    agentgym.close_sessions()
    agentgym.close_sessions()
    if server.protocol == "webshop":  # asked once: there is no such path
        assert server.count("/close") == 1
    else:
        assert len(set(server.closed)) == len(server.closed) == server.count("/close") == 3
    assert kept.step("inventory").stop is None


@pytest.mark.parametrize("ending", ["", "raise ValueError", "sys.exit(3)", "raise KeyboardInterrupt"])
def test_sessions_are_closed_when_the_process_ends(textcraft: AgentGymServer, ending: str) -> None:
    script = f"""
import sys
from rlprm import envs
from rlprm.types import End, Split
made = envs.load("agentgym").tasks(
    Split.TEST, 0, 3, server={textcraft.url!r}, protocol="textcraft", data_indices={{"test": "0-9"}})
kept = [envs.load(task.environment).make(task, end=End.ON_SUCCESS) for task in made]
for env in kept:
    env.reset()
kept[0].step("inventory")
kept.pop()
{ending}
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(
        [sys.executable, "-c", script], env=environment, timeout=60, check=False, capture_output=True
    )
    assert textcraft.created == 3
    assert sorted(textcraft.closed) == [1, 2, 3]


def test_a_dead_server_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving("textcraft") as server:
        several = [episode(server) for _ in range(5)]
        for env in several:
            env.reset()
    del env
    several.clear()
    started = time.monotonic()
    agentgym.close_sessions()
    assert time.monotonic() - started < 2


def test_a_forked_process_leaves_its_parents_sessions_alone(textcraft: AgentGymServer) -> None:
    env = episode(textcraft)
    env.reset()
    script = f"""
import os, sys
from rlprm import envs
from rlprm.types import End, Split
(task,) = envs.load("agentgym").tasks(
    Split.TEST, 0, 1, server={textcraft.url!r}, protocol="textcraft", data_indices={{"test": "5-9"}})
env = envs.load(task.environment).make(task, end=End.ON_SUCCESS)
env.reset()
env.step("get 1 oak log")
child = os.fork()
said = env.step("inventory").observation
assert said == "Inventory: [oak log] (1) ", said
if child:
    os.waitpid(child, 0)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        timeout=60,
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert textcraft.created == 3  # one here, one of the parent, one of the child
    assert sorted(textcraft.closed) == [2, 3]


def test_pools_of_sessions_are_found_again() -> None:
    first = sessions.sessions_at("http://h:1", 1.0, 0, 4, babyai.DIALECT)
    assert sessions.sessions_at("http://h:1", 1.0, 0, 4, babyai.DIALECT) is first
    assert sessions.sessions_at("http://h:1", 1.0, 0, 5, babyai.DIALECT) is not first
