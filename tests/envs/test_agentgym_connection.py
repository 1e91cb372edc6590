"""Environments over HTTP: connections that are refused, silent, used again or closed while idle."""

from __future__ import annotations

import json
import socket
import threading
import time

import pytest

from rlprm import envs
from rlprm.envs.agentgym import connection
from rlprm.envs.agentgym.connection import DroppedError, LateError, Server, UnreachableError
from rlprm.types import End
from tests.toys.agentgym_episodes import OK, episode, solution, tasks
from tests.toys.agentgym_server import AgentGymServer, Handler, open_world


def test_a_connection_that_is_refused_is_tried_again_even_for_a_step(
    textcraft: AgentGymServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = episode(textcraft)
    env.reset()
    monkeypatch.setattr(connection, "_IDLE_LIMIT", 0.0)
    refused = [2]
    really = connection._Connection.connect

    def sometimes(self: connection._Connection) -> None:
        if refused[0]:
            refused[0] -= 1
            raise ConnectionRefusedError(111, "Connection refused")
        really(self)

    monkeypatch.setattr(connection._Connection, "connect", sometimes)
    assert env.step("inventory").observation == "Inventory: You are not carrying anything."
    assert textcraft.count("/step") == 1
    refused[0] = 3
    with pytest.raises(UnreachableError, match="/step: ConnectionRefusedError: Connection refused"):
        env.step("inventory")
    assert textcraft.count("/step") == 1


def test_a_server_that_takes_connections_and_says_nothing_is_late() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = Server(f"http://127.0.0.1:{silent.getsockname()[1]}", 0.3, 5)
        with pytest.raises(LateError):
            server.get("/observation")


def test_a_server_that_does_not_speak_http_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as strange:

        def talk() -> None:
            for _ in range(2):
                client, _ = strange.accept()
                client.recv(1000)
                client.sendall(b"220 smtp.example.org\r\n")
                client.close()

        thread = threading.Thread(target=talk)
        thread.start()
        server = Server(f"http://127.0.0.1:{strange.getsockname()[1]}", 5, 1)
        with pytest.raises(DroppedError, match="BadStatusLine"):
            server.get("/observation")
        thread.join()


def test_connections_are_used_again(textcraft: AgentGymServer) -> None:
    env = episode(textcraft)
    env.reset()
    for _ in range(20):
        env.step("inventory")
    assert textcraft.connections == 1


def test_a_connection_that_the_server_closed_while_idle_loses_no_step(textcraft: AgentGymServer) -> None:
    env = episode(textcraft)
    env.reset()

    def answers_and_hangs_up(handler: Handler) -> bool:
        handler.close_connection = True  # without a word in the answer
        handler.send(200, json.dumps(OK).encode())
        return False

    for number in range(1, 6):
        textcraft.faults["/step"].append(answers_and_hangs_up)
        env.step("inventory")
        time.sleep(0.02)
        assert textcraft.count("/step") == number
    assert textcraft.connections == 5


def test_a_connection_that_was_idle_for_long_is_not_used_again(
    textcraft: AgentGymServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_IDLE_LIMIT", 0.05)
    env = episode(textcraft)
    env.reset()
    time.sleep(0.1)
    env.step("inventory")
    assert textcraft.connections == 2


def test_many_threads_share_a_server(textcraft: AgentGymServer) -> None:
    textcraft.delay = 0.005
    found: list[str] = []

    def play(number: int) -> None:
        (task,) = [t for t in tasks(textcraft, 15) if t.spec["data_idx"] == number]
        env = envs.load(task.environment).make(task, end=End.ON_SUCCESS)
        first = env.reset()
        turns = [env.step(action).observation for action in solution("textcraft", number)]
        world = open_world("textcraft", number)
        same = [first, *turns] == [
            world.reset(), *(world.step(a).observation for a in solution("textcraft", number))
        ]  # fmt: skip
        found.append("same" if same else f"{number} differs")

    threads = [threading.Thread(target=play, args=(n,)) for n in range(1, 15)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["same"] * 14
