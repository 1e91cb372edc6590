"""Environments over HTTP: failing requests and wrong answers are errors with a cause, and in time."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from rlprm.envs.agentgym.connection import BusyError, DroppedError, LateError, ServerError
from rlprm.types import Turn
from tests.toys.agentgym_episodes import OK, Fault, episode
from tests.toys.agentgym_server import (
    PROTOCOLS,
    AgentGymServer,
    carries_out_and_drops,
    drops,
    halves,
    open_world,
    resets,
    says,
    serving,
    sleeps,
    trickles,
)


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


NOT_A_NUMBER = ("absent", None, "1", [], True, 1e999, -1e999)
WRONG = [
    *(
        (p, "state" if p == "webshop" else "observation", v)
        for p in PROTOCOLS
        for v in ("absent", None, 3, [], {}, True)
    ),
    *((p, "done", v) for p in PROTOCOLS for v in ("absent", None, "true", 0, 1)),
    *((p, "reward", v) for p in PROTOCOLS for v in NOT_A_NUMBER),
    *((p, "reward", v) for p in ("textcraft", "webshop") for v in (2, 1.001, -0.5)),
    *(("babyai", "score", v) for v in (*NOT_A_NUMBER, 10**400, -(10**400))),
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


@pytest.mark.parametrize(
    ("path", "faults", "tries"),
    [
        ("/create", [says("busy", 503)], 2),
        ("/create", [says("slow down", 429), says("busy", 503)], 3),
        ("/reset", [says("busy", 503)], 2),
        ("/reset", [drops, says("busy", 502)], 3),
        ("/reset", [resets, halves], 3),
        ("/reset", [carries_out_and_drops, says("late", 504)], 3),
    ],
)
def test_what_does_no_harm_twice_is_repeated(
    server: AgentGymServer, path: str, faults: list[Fault], tries: int
) -> None:
    server.faults[path].extend(faults)
    assert episode(server).reset() == open_world(server.protocol, 1).reset()
    assert server.count(path) == tries


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (carries_out_and_drops, DroppedError),
        (drops, DroppedError),
        (resets, DroppedError),
        (halves, DroppedError),
        (says("no answer from behind", 502), BusyError),
        (says("no answer from behind", 504), BusyError),
    ],
)
def test_a_session_that_may_be_open_is_not_opened_twice(
    server: AgentGymServer, fault: Fault, error: type[ServerError]
) -> None:
    server.faults["/create"].append(fault)
    with pytest.raises(error, match=f"{server.url}/create: "):
        episode(server).reset()
    assert server.count("/create") == 1
    assert server.created == (fault is carries_out_and_drops)
    assert episode(server).reset() == open_world(server.protocol, 1).reset()


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
    assert server.count(path) == (1 if (path, fault) == ("/create", drops) else tries)


def test_webshops_first_observation_is_asked_for_and_repeated() -> None:
    with serving("webshop") as server:
        server.faults["/observation"].extend([says("busy", 503), drops])
        assert episode(server).reset().endswith("Search")
        assert server.count("/observation") == 3
        server.faults["/reset"].extend([says(["page"])] * 2)
        with pytest.raises(ServerError, match="allowed: an observation and null"):
            episode(server).reset()


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
