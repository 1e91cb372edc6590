"""Environments over HTTP: rollouts and collections."""

from __future__ import annotations

import re
import socket
import threading
import time
from pathlib import Path

import pytest

from rlprm.data.formats import load_format
from rlprm.data.store import TrajectoryStore
from rlprm.envs.agentgym import NoServerError, sessions
from rlprm.errors import RlprmError
from rlprm.rollouts.collection import collect
from rlprm.rollouts.waves import rollout
from rlprm.types import End, EpisodeSetting, StopReason
from tests.toys.agentgym_episodes import Fault, policy, tasks
from tests.toys.agentgym_server import (
    AgentGymServer,
    Handler,
    drops,
    halves,
    open_world,
    says,
    serving,
    sleeps,
    world_task,
)
from tests.toys.agents import SeededPolicy

ON_SUCCESS = EpisodeSetting(end=End.ON_SUCCESS, round_limit=4)


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
        dead = tasks(server, 3, retries=1, max_unanswered_starts=7)
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


def test_a_collection_from_a_dead_server_ends_with_one_line(tmp_path: Path) -> None:
    with serving("textcraft") as server:
        dead = tasks(server, 20, retries=1)
    started = time.monotonic()
    with pytest.raises(NoServerError) as caught:
        collect(
            policy("textcraft", 1), dead, ON_SUCCESS,
            folder=str(tmp_path), samples_per_task=50, wave_size=64, seed=0, meta={"environment": "agentgym"},
        )  # fmt: skip
    assert time.monotonic() - started < 10
    assert isinstance(caught.value, RlprmError)
    assert re.fullmatch(
        rf"no AgentGym server answers at {server.url}: \d+ episodes in a row could not begin "
        rf"\(POST {server.url}/create: ConnectionRefusedError: Connection refused\)",
        str(caught.value),
    )
    assert not list(tmp_path.glob("wave-*"))


def test_a_server_that_says_nothing_costs_one_time_limit() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        server = AgentGymServer("babyai", f"http://127.0.0.1:{silent.getsockname()[1]}")
        jobs = [(task, n) for task in tasks(server, 20, timeout=0.5) for n in range(50)]
        started = time.monotonic()
        with pytest.raises(NoServerError, match=r"/create: no answer within 0\.5 s"):
            rollout(jobs, policy("textcraft", 1), ON_SUCCESS)
        assert time.monotonic() - started < 5


@pytest.mark.parametrize("fault", [drops, says("no one behind", 502), says("no", 503), sleeps(0.4)])
def test_starts_in_a_row_without_an_answer_end_the_stage(
    textcraft: AgentGymServer, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "_RESPITE", 0.0)
    ones = [(task, 0) for task in tasks(textcraft, 20, timeout=0.3, retries=0, max_unanswered_starts=3)]
    (first,) = rollout(ones[:1], policy("textcraft", 1), ON_SUCCESS)
    assert first.error is None
    textcraft.faults["/reset"].extend([fault] * 2)
    textcraft.faults["/create"].extend([fault] * 2)
    for job in ones[1:3]:
        (made,) = rollout([job], policy("textcraft", 1), ON_SUCCESS)
        assert made.stop is StopReason.ERROR
    with pytest.raises(NoServerError, match="3 episodes in a row could not begin"):
        rollout(ones[3:4], policy("textcraft", 1), ON_SUCCESS)
    textcraft.faults.clear()
    (made,) = rollout(ones[4:5], policy("textcraft", 1), ON_SUCCESS)  # it was tried, and that ends the row
    assert made.error is None
    textcraft.faults["/reset"].append(fault)
    (made,) = rollout(ones[5:6], policy("textcraft", 1), ON_SUCCESS)
    assert made.stop is StopReason.ERROR


def test_those_that_follow_at_once_do_not_ask_a_server_that_is_gone(
    textcraft: AgentGymServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [(task, 0) for task in tasks(textcraft, 2, retries=0, max_unanswered_starts=1)]
    textcraft.faults["/create"].append(drops)
    for _ in range(2):
        with pytest.raises(NoServerError, match="1 episodes in a row could not begin"):
            rollout(jobs[:1], policy("textcraft", 1), ON_SUCCESS)
        monkeypatch.setattr(sessions, "_RESPITE", 2.0)
    assert len(textcraft.requests) == 1
    monkeypatch.setattr(sessions, "_RESPITE", 0.0)  # it is later now
    (made,) = rollout(jobs[1:], policy("textcraft", 1), ON_SUCCESS)
    assert made.error is None


def test_a_task_that_cannot_be_reset_does_not_end_the_stage(textcraft: AgentGymServer) -> None:
    textcraft.bad_indices = {1}
    jobs = [(task, n) for task in tasks(textcraft, 2, max_unanswered_starts=1) for n in range(8)]
    made = rollout(jobs, policy("textcraft", 1), ON_SUCCESS)
    assert [t.stop is StopReason.ERROR for t in made] == [True] * 8 + [False] * 8


def test_a_server_that_is_slow_for_some_is_not_gone(textcraft: AgentGymServer) -> None:
    jobs = [(task, 0) for task in tasks(textcraft, 8, timeout=4.0, retries=0, max_unanswered_starts=1)]
    textcraft.faults["/create"].extend([sleeps(8.0)] * 4)
    made = rollout(jobs, policy("textcraft", 1), ON_SUCCESS)
    assert [t.error is None for t in made].count(False) == 4


def test_a_server_that_dies_in_the_middle_leaves_a_wave_of_failures() -> None:
    with serving("babyai") as server:
        jobs = [(task, 0) for task in tasks(server, 3, timeout=5.0, retries=0, max_unanswered_starts=3)]
        server.faults["/step"].extend([sleeps(0)] * 3 + [drops] * 9)
        turner = SeededPolicy(["turn left"])
        turner.context_length = 100_000
        made = rollout(jobs, turner, ON_SUCCESS)
    assert [t.stop for t in made] == [StopReason.ERROR] * 3
    assert [len(t.steps) for t in made] == [2, 2, 2]
    with pytest.raises(NoServerError, match=f"no AgentGym server answers at {server.url}: 3 episodes"):
        rollout(jobs, turner, ON_SUCCESS)


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
