"""Environments over HTTP: played as in process, failing with a cause and in time, leaving nothing behind."""

from __future__ import annotations

import gc
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlprm import envs
from rlprm.collect import collect
from rlprm.data.formats import load_format
from rlprm.data.store import TrajectoryStore
from rlprm.envs import agentgym
from rlprm.envs.agentgym import connection, sessions
from rlprm.envs.agentgym.connection import (
    BusyError,
    DroppedError,
    LateError,
    Server,
    ServerError,
    UnreachableError,
)
from rlprm.envs.agentgym.episode import ServedEpisode
from rlprm.errors import ConfigError, DataError, DemonstrationError
from rlprm.monte_carlo import estimate, replay
from rlprm.rollout import rollout
from rlprm.search import beam
from rlprm.types import End, EpisodeSetting, Outcome, Split, StopReason, Task, Turn
from tests.toys.agentgym_server import (
    PROTOCOLS,
    AgentGymServer,
    Handler,
    drops,
    halves,
    open_world,
    resets,
    says,
    serving,
    sleeps,
    trickles,
    world_task,
)
from tests.toys.agents import FunctionScorer, SeededPolicy

ROOT = Path(__file__).parents[2]
ON_SUCCESS = EpisodeSetting(end=End.ON_SUCCESS, round_limit=4)
SHOPPING = ["search[boots]", "click[nonsense]", "click[next >]", "click[back to search]"]


@pytest.fixture(params=PROTOCOLS)
def server(request: pytest.FixtureRequest) -> Iterator[AgentGymServer]:
    with serving(request.param) as running:
        yield running


@pytest.fixture
def textcraft() -> Iterator[AgentGymServer]:
    with serving("textcraft") as running:
        yield running


def tasks(server: AgentGymServer, count: int = 1, **settings: Any) -> list[Task]:
    settings = {"timeout": 5.0, "retries": 2, **settings}
    return envs.load("agentgym").tasks(
        Split.TEST, 0, count, server=server.url, protocol=server.protocol,
        data_indices={"test": [1, "2-20"]}, **settings,
    )  # fmt: skip


def episode(server: AgentGymServer, **settings: Any) -> ServedEpisode:
    (task,) = tasks(server, **settings)
    made = envs.load(task.environment).make(task, end=End.ON_SUCCESS)
    assert isinstance(made, ServedEpisode)
    return made


def solution(protocol: str, data_idx: int) -> list[str]:
    return envs.load(protocol).demonstrate(world_task(protocol, data_idx), end=End.ON_SUCCESS)


def transcript(env: Any, actions: list[str]) -> list[tuple[str, StopReason | None, bool]]:
    """What an episode shows; rewards and the validity of actions are other matters."""
    turns = [env.step(action) for action in actions]
    return (
        [(env.reset(), None, False)] if not turns else [(t.observation, t.stop, t.reward > 0) for t in turns]
    )


# --- the same episodes as in process


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
    [(0.0, Outcome(0.0, False, "")), (0.3, Outcome(0.3, True, "")), (1.7, Outcome(1.0, True, ""))],
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
        assert (turn.observation, turn.reward) == ("o", 0.0)
        assert turn.stop == (StopReason.SUCCESS if score else None)
        assert (env.outcome().score, env.outcome().success) == (shown.score, shown.success)


def test_a_done_episode_without_success_is_a_failure(textcraft: AgentGymServer) -> None:
    env = episode(textcraft)
    env.reset()
    textcraft.faults["/step"].append(says({"observation": "o", "reward": 0, "done": True}))
    assert env.step("x").stop is StopReason.FAILURE
    assert env.outcome() == Outcome(0.0, False, "agentgym textcraft: reward 1")


# --- instructions, experts, settings


@pytest.mark.parametrize("name", ["babyai", "textcraft"])
@pytest.mark.parametrize("style", ["none", "short", "agentgym"])
def test_instructions_are_those_of_the_same_world_in_process(name: str, style: str) -> None:
    here = envs.load(name).opening(end=End.ON_SUCCESS, style=style)
    assert envs.load(f"rlprm.envs.agentgym.{name}").opening(end=End.ON_SUCCESS, style=style) == here


def test_webshops_client_says_ok_in_its_own_way() -> None:
    module = envs.load("rlprm.envs.agentgym.webshop")
    opening = module.opening(end=End.DECLARED, style="agentgym")
    assert [m["role"] for m in opening] == ["user", "assistant"]
    assert opening[1]["content"] == "Ok."
    assert "search[" in opening[0]["content"]
    assert "Action:" in opening[0]["content"]
    assert "Action:" not in module.opening(end=End.DECLARED, style="short")[0]["content"]


@pytest.mark.parametrize("name", ["agentgym", *(f"rlprm.envs.agentgym.{p}" for p in PROTOCOLS)])
def test_a_server_has_no_expert_and_the_error_names_agenttraj(name: str) -> None:
    task = Task(name, "babyai_1", Split.TRAIN)
    with pytest.raises(DemonstrationError, match=r"no demonstration of babyai_1: .* AgentTraj"):
        envs.load(name).demonstrate(task, end=End.ON_SUCCESS)
    assert "server" in str(envs.missing(name))


def test_servers_that_end_on_success_refuse_declared_ends() -> None:
    with serving("babyai") as server:
        (task,) = tasks(server)
        for make in (envs.load(task.environment).make, envs.load("agentgym").make):
            with pytest.raises(ConfigError, match="end: got declared, allowed: on_success"):
                make(task, end=End.DECLARED)
        with pytest.raises(ConfigError, match="end: got declared"):
            rollout([(task, 0)], SeededPolicy(), EpisodeSetting(end=End.DECLARED))
        assert server.requests == []
    with serving("webshop") as shop:
        (task,) = tasks(shop)
        assert envs.load(task.environment).make(task, end=End.DECLARED).reset()


def test_tasks_are_slices_of_the_data_indices(textcraft: AgentGymServer) -> None:
    indices = {"train": ["0-3", 9, "9"], "test": 5}
    made = agentgym.tasks(
        Split.TRAIN, 1, 4, server=f"{textcraft.url}/", protocol="textcraft", data_indices=indices
    )
    assert [t.id for t in made] == ["textcraft_1", "textcraft_2", "textcraft_3", "textcraft_9"]
    assert {t.environment for t in made} == {"rlprm.envs.agentgym.textcraft"}
    assert made[0].spec == {"server": textcraft.url, "timeout": 60.0, "retries": 5, "data_idx": 1}
    assert json.loads(json.dumps(made[0].spec)) == made[0].spec
    module = envs.load("rlprm.envs.agentgym.textcraft")
    assert module.tasks(Split.TRAIN, 1, 4, server=textcraft.url, data_indices=indices) == made
    assert module.tasks(Split.DEV, 0, 0, server=textcraft.url, data_indices=indices) == []
    assert textcraft.requests == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"server": ""}, "agentgym server: got ''; give the URL"),
        ({"server": "localhost:8000"}, "server: got 'localhost:8000', allowed: http://host:port"),
        ({"server": "http://h:port"}, "server: got 'http://h:port'"),
        ({"server": "http://"}, "server: got 'http://'"),
        ({"server": "http://h/?a=1"}, "server: got"),
        ({"server": 3}, "agentgym server: got 3"),
        ({"protocol": "alfworld"}, "agentgym protocol: got 'alfworld', allowed: babyai, textcraft, webshop"),
        ({"timeout": 0}, "agentgym timeout: got 0"),
        ({"timeout": float("inf")}, "agentgym timeout: got inf"),
        ({"timeout": True}, "agentgym timeout: got True"),
        ({"retries": -1}, "agentgym retries: got -1"),
        ({"retries": 1.5}, "agentgym retries: got 1.5"),
        ({"tiemout": 1}, "has no setting 'tiemout'; allowed: server, data_indices, timeout, retries"),
        ({"data_indices": None}, "agentgym data_indices: got None, allowed: train, dev, test"),
        ({"data_indices": {"eval": 3}}, "agentgym data_indices: got {'eval': 3}"),
        ({"data_indices": {"test": -1}}, "agentgym data_indices: got -1"),
        ({"data_indices": {"test": ["5-3"]}}, "agentgym data_indices: got '5-3', allowed: first-last"),
        ({"data_indices": {"test": "0-9999999999"}}, "allowed: first-last, 1,000,000 at most"),
        ({"data_indices": {"test": [1.5]}}, "agentgym data_indices: got 1.5"),
        ({"data_indices": {"test": [None]}}, "agentgym data_indices: got None"),
        ({"data_indices": {"test": 3, "train": "0-3"}}, "3 is in train and in test"),
        ({"data_indices": {"test": "0-3"}}, "data_indices.test has 4 data indices of textcraft, got start 2"),
        ({"data_indices": {"train": 0}}, "data_indices.test has 0 data indices"),
    ],
)
def test_impossible_settings_are_one_line(settings: dict[str, Any], message: str) -> None:
    usual = {"server": "http://h:1", "protocol": "textcraft", "data_indices": {"test": "0-9"}}
    with pytest.raises(ConfigError) as caught:
        agentgym.tasks(Split.TEST, 2, 3, **{**usual, **settings})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_task_of_another_environment_is_refused() -> None:
    stranger = Task("agentgym", "textcraft_1", Split.TEST, {"goal": "stick"})
    with pytest.raises(ConfigError, match="not a task of an AgentGym server"):
        agentgym.make(stranger, end=End.ON_SUCCESS)
    with pytest.raises(ConfigError, match="protocol: got 'alfworld'"):
        agentgym.make(Task("agentgym", "alfworld_1", Split.TEST), end=End.ON_SUCCESS)


# --- faults

Fault = Callable[[Handler], bool]
OK = {"observation": "o", "reward": 0, "score": 0, "done": False, "state": "o", "info": None}


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (drops, DroppedError),
        (resets, DroppedError),
        (halves, DroppedError),
        (says("busy", 503), BusyError),
        (says("slow down", 429), BusyError),
        (says("Internal Server Error", 500), ServerError),
        (says({"error": "no such id"}), ServerError),
        (says(b"<html>"), ServerError),
        (says(b'{"observation": "o", "state": "o", "reward": NaN, "score": 0, "done": false}'), ServerError),
        (says(b""), ServerError),
        (says(b"\xff\xfe"), ServerError),
        (says(b"[" * 100_000), ServerError),
        (says(None), ServerError),
        (says([]), ServerError),
        (says("o"), ServerError),
        (says(b" " * (2**24 + 1)), ServerError),
    ],
)
def test_a_step_that_fails_is_an_error_and_is_never_repeated(
    server: AgentGymServer, fault: Fault, error: type[ServerError]
) -> None:
    env = episode(server)
    env.reset()
    server.faults["/step"].append(fault)
    with pytest.raises(ServerError) as caught:
        env.step("inventory")
    assert type(caught.value) is error
    assert f"POST {server.url}/step" in str(caught.value) or f"{server.url}/step: " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    assert server.count("/step") == 1


NOT_A_NUMBER = ("absent", None, "1", [], True, -0.5, 1e999)
WRONG = [
    *(
        (p, "state" if p == "webshop" else "observation", v)
        for p in PROTOCOLS
        for v in ("absent", None, 3, [], {}, True)
    ),
    *((p, "done", v) for p in PROTOCOLS for v in ("absent", None, "true", 0, 1)),
    *((p, "reward", v) for p in PROTOCOLS for v in NOT_A_NUMBER),
    *((p, "reward", v) for p in ("textcraft", "webshop") for v in (2, 1.001)),
    *(("babyai", "score", v) for v in (*NOT_A_NUMBER, 10**400)),
]


@pytest.mark.parametrize(("protocol", "name", "value"), WRONG)
def test_an_answer_of_the_wrong_type_is_an_error_not_a_zero(protocol: str, name: str, value: Any) -> None:
    answer = {k: v for k, v in {**OK, name: value}.items() if v != "absent"}
    with serving(protocol) as server:
        env = episode(server)
        env.reset()
        server.faults["/step"].append(says(json.dumps(answer).replace("Infinity", "1e999").encode()))
        with pytest.raises(ServerError, match=f"{'observation' if name == 'state' else name}: got "):
            env.step("search[x]")
        server.faults["/step"].append(says(OK))
        assert env.fork().step("search[x]") == Turn("o")


def test_half_characters_do_not_reach_the_files(textcraft: AgentGymServer) -> None:
    env = episode(textcraft)
    textcraft.faults["/reset"].append(says(b'{"observation": "a \\ud800 b"}'))
    assert env.reset() == "a ? b"


@pytest.mark.parametrize("path", ["/create", "/reset"])
@pytest.mark.parametrize(
    ("faults", "tries"),
    [
        ([says("busy", 503)], 2),
        ([drops, says("busy", 502)], 3),
        ([resets, halves], 3),
    ],
)
def test_what_does_no_harm_twice_is_repeated(
    server: AgentGymServer, path: str, faults: list[Fault], tries: int
) -> None:
    server.faults[path].extend(faults)
    assert episode(server).reset() == open_world(server.protocol, 1).reset()
    assert server.count(path) == tries


@pytest.mark.parametrize("path", ["/create", "/reset"])
@pytest.mark.parametrize(
    ("fault", "error", "tries"),
    [
        (says("busy", 503), BusyError, 3),
        (drops, DroppedError, 3),
        (says("Internal Server Error", 500), ServerError, 1),
        (says({"error": "no"}), ServerError, 1),
        (says("one"), ServerError, 1),
        (says(True), ServerError, 1),
    ],
)
def test_repeats_end(
    server: AgentGymServer, path: str, fault: Fault, error: type[ServerError], tries: int
) -> None:
    server.faults[path].extend([fault] * 9)
    with pytest.raises(ServerError) as caught:
        episode(server).reset()
    assert type(caught.value) is error
    assert server.count(path) == tries


def test_webshops_first_observation_is_asked_for_and_repeated() -> None:
    with serving("webshop") as server:
        server.faults["/observation"].extend([says("busy", 503), drops])
        assert episode(server).reset().endswith("Search")
        assert server.count("/observation") == 3
        server.faults["/reset"].extend([says(["page"])] * 2)
        with pytest.raises(ServerError, match="allowed: an observation and null"):
            episode(server).reset()


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


@pytest.mark.parametrize("fault", [sleeps(3), trickles])
@pytest.mark.parametrize("path", ["/create", "/reset", "/step"])
def test_what_is_late_is_given_up_and_not_repeated(
    textcraft: AgentGymServer, path: str, fault: Fault
) -> None:
    textcraft.faults[path].append(fault)
    env = episode(textcraft, timeout=0.3)
    if path == "/step":
        env.reset()
    started = time.monotonic()
    with pytest.raises(LateError, match=rf"{path}: no answer within 0\.3 s"):
        env.step("inventory") if path == "/step" else env.reset()
    assert time.monotonic() - started < 2
    assert textcraft.count(path) == 1


def test_repeats_stay_within_the_time_limit(textcraft: AgentGymServer) -> None:
    textcraft.faults["/create"].extend([says("busy", 503)] * 100)
    started = time.monotonic()
    with pytest.raises(BusyError):
        episode(textcraft, timeout=0.5, retries=100).reset()
    assert time.monotonic() - started < 2
    assert 2 <= textcraft.count("/create") <= 4


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


# --- connections


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


# --- sessions


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


# --- copies


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


# --- rollouts, collections and searches


def policy(protocol: str, data_idx: int) -> SeededPolicy:
    """Draws from the actions of a solution and a few others."""
    made = SeededPolicy([*dict.fromkeys(solution(protocol, data_idx)), "inventory", "turn left"])
    made.context_length = 100_000
    made.max_new_tokens = 200
    return made


def test_a_rollout_gives_the_trajectories_of_the_world_in_process() -> None:
    with serving("textcraft") as server:
        (task,) = tasks(server)
        here = rollout(
            [(world_task("textcraft", 1), n) for n in range(6)], policy("textcraft", 1), ON_SUCCESS
        )
        there = rollout([(task, n) for n in range(6)], policy("textcraft", 1), ON_SUCCESS)
    # Seeds are functions of the task's id: the draws differ, but each history is answered alike.
    for made in there:
        assert made.stop in (StopReason.SUCCESS, StopReason.ROUND_LIMIT)
        world = open_world("textcraft", 1)
        replayed = [world.reset(), *(world.step(step.action).observation for step in made.steps)]
        assert [m["content"] for m in made.messages[::2]] == replayed
    assert {t.template for t in here} == {t.template for t in there}


def test_environments_of_a_wave_are_asked_at_once(textcraft: AgentGymServer) -> None:
    """Requests are answered only when so many are there."""
    width, turns = 8, 3
    for path, rounds in (("/create", 1), ("/reset", 1), ("/step", turns)):
        for _ in range(rounds):
            barrier = threading.Barrier(width, timeout=60)

            def waits(_: Handler, barrier: threading.Barrier = barrier) -> bool:
                return barrier.wait() >= 0

            textcraft.faults[path].extend([waits] * width)
    jobs = [(task, 0) for task in tasks(textcraft, width, timeout=60.0)]
    made = rollout(jobs, policy("textcraft", 1), EpisodeSetting(end=End.ON_SUCCESS, round_limit=turns))
    assert [t.task for t in made] == [task for task, _ in jobs]
    assert [t.error for t in made] == [None] * width
    assert textcraft.most_busy == width


@pytest.mark.parametrize(
    "fault", [drops, halves, says("no", 500), says({"error": "no"}), says(b"<"), sleeps(6)]
)
@pytest.mark.parametrize("path", ["/create", "/reset", "/step"])
def test_an_episode_whose_server_failed_is_recorded_and_the_others_go_on(
    textcraft: AgentGymServer, path: str, fault: Fault
) -> None:
    jobs = [(task, 0) for task in tasks(textcraft, 4, timeout=3.0, retries=0)]
    textcraft.faults[path].append(fault)
    made = rollout(jobs, policy("textcraft", 1), ON_SUCCESS)
    assert [t.error is None for t in made].count(False) == 1, [t.error for t in made]
    (failed,) = [t for t in made if t.stop is StopReason.ERROR]
    assert failed.error is not None
    assert f"{textcraft.url}{path}: " in failed.error
    assert failed.error.split(":")[0] in ("ServerError", "DroppedError", "LateError")
    assert not failed.outcome.success
    assert failed.outcome.definition == "error"
    assert len(failed.steps) == (1 if path == "/step" else 0)
    assert [len(t.steps) for t in made if t is not failed] == [4, 4, 4]


def test_a_collection_from_a_dead_server_is_failures_with_their_cause(tmp_path: Path) -> None:
    with serving("textcraft") as server:
        dead = tasks(server, 3, retries=1)
    started = time.monotonic()
    store = collect(
        policy("textcraft", 1), dead, ON_SUCCESS,
        folder=str(tmp_path), samples_per_task=2, wave_size=4, seed=0, meta={"environment": "agentgym"},
    )  # fmt: skip
    assert time.monotonic() - started < 20
    made = TrajectoryStore.open(store.folder).read()
    assert [t.stop for t in made] == [StopReason.ERROR] * 6
    assert all(t.error and t.error.startswith("UnreachableError: POST http://127.0.0.1:") for t in made)
    assert {t.task.id for t in made} == {"textcraft_1", "textcraft_2", "textcraft_3"}


def test_a_server_that_dies_in_the_middle_leaves_a_wave_of_failures() -> None:
    with serving("babyai") as server:
        jobs = [(task, 0) for task in tasks(server, 3, timeout=5.0, retries=0)]
        server.faults["/step"].extend([sleeps(0)] * 3 + [drops] * 9)
        turner = SeededPolicy(["turn left"])
        turner.context_length = 100_000
        made = rollout(jobs, turner, ON_SUCCESS)
    assert [t.stop for t in made] == [StopReason.ERROR] * 3
    assert [len(t.steps) for t in made] == [2, 2, 2]


def value(task: Task, actions: tuple[str, ...]) -> float:
    """Prefers the actions of the solution, each once."""
    return len(set(actions) & set(solution("textcraft", 1))) - 0.01 * len(actions)


def test_a_beam_search_finds_what_it_finds_in_process() -> None:
    actions = solution("textcraft", 1)
    setting = EpisodeSetting(end=End.ON_SUCCESS, round_limit=len(actions) + 1)
    with serving("textcraft") as server:
        (served,) = tasks(server)
        local = Task("textcraft", served.id, served.split, world_task("textcraft", 1).spec)
        scorer = FunctionScorer(value)
        (there,) = beam.search([served], policy("textcraft", 1), scorer, setting, n=3, m=4)
        (here,) = beam.search([local], policy("textcraft", 1), scorer, setting, n=3, m=4)
        assert there.trajectory.messages == here.trajectory.messages
        assert [s.action for s in there.trajectory.steps] == [s.action for s in here.trajectory.steps]
        assert there.trajectory.outcome.success == here.trajectory.outcome.success
        assert (there.score, there.env_steps, there.policy_tokens) == (
            here.score,
            here.env_steps,
            here.policy_tokens,
        )
        assert server.most_busy > 1
        assert server.created <= 3 * 4 + 3  # at most as many sessions as copies at one time
    assert there.trajectory.outcome.success


def test_a_beam_search_survives_copies_that_fail(textcraft: AgentGymServer) -> None:
    actions = solution("textcraft", 1)
    setting = EpisodeSetting(end=End.ON_SUCCESS, round_limit=len(actions) + 1)
    (task,) = tasks(textcraft)
    textcraft.faults["/step"].extend([drops, says({"error": "no"}), says("no", 500)])
    (found,) = beam.search([task], policy("textcraft", 1), FunctionScorer(value), setting, n=3, m=4)
    assert found.trajectory.stop is StopReason.SUCCESS
    with serving("textcraft") as server:
        (dead,) = tasks(server, retries=0)
    (failed,) = beam.search([dead], policy("textcraft", 1), FunctionScorer(value), setting, n=2, m=2)
    assert failed.trajectory.stop is StopReason.ERROR
    assert failed.score is None


def test_estimates_of_a_servers_states_are_those_in_process() -> None:
    setting = EpisodeSetting(end=End.ON_SUCCESS, round_limit=4)
    found = []
    with serving("textcraft") as server:
        (served,) = tasks(server)
        local = Task("textcraft", served.id, served.split, world_task("textcraft", 1).spec)
        for task in (local, served):
            (made,) = rollout([(task, 0)], policy("textcraft", 1), setting)
            states = replay(made, setting, policy("textcraft", 1))
            assert states[-1].trajectory() == made
            found.append(estimate(states[:-1], policy("textcraft", 1), 3))
        with_server = len(server.requests)
    assert found[0] == found[1]
    assert with_server > 4 * 3 * 2
    with pytest.raises(DataError, match="cannot be replayed: UnreachableError: POST"):
        replay(made, setting, policy("textcraft", 1))


def test_react_messages_reach_the_server_as_actions(textcraft: AgentGymServer) -> None:
    (task,) = tasks(textcraft)
    write = load_format("react").write
    speaker = SeededPolicy([write("inventory")])
    speaker.context_length, speaker.max_new_tokens = 100_000, 200
    setting = EpisodeSetting(end=End.ON_SUCCESS, round_limit=2, prompt="agentgym", action_format="react")
    (made,) = rollout([(task, 0)], speaker, setting)
    assert [body["action"] for path, body in textcraft.requests if path == "/step"] == ["inventory"] * 2
    assert made.messages[1]["content"].startswith("OK. I'll follow")
    assert [s.valid for s in made.steps] == [True, True]


def test_pools_of_sessions_are_found_again() -> None:
    first = sessions.sessions_at("http://h:1", 1.0, 0, envs.load("rlprm.envs.agentgym.babyai").DIALECT)  # type: ignore[attr-defined]
    assert (
        sessions.sessions_at("http://h:1", 1.0, 0, envs.load("rlprm.envs.agentgym.babyai").DIALECT) is first
    )  # type: ignore[attr-defined]
