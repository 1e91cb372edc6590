"""Environments over HTTP: rollouts and collections."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from rlprm.collect import collect
from rlprm.data.formats import load_format
from rlprm.data.store import TrajectoryStore
from rlprm.rollout import rollout
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
