"""Tasks go to other processes, which have made no environment before, and play the same episodes there."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest

from rlprm import envs
from rlprm.errors import DemonstrationError
from rlprm.types import End, Split, Task
from tests.envs.given import GIVEN, ends_of, environment_of, load


def play(task: Task, actions: list[str], end: End) -> list[object]:
    env = envs.load(task.environment).make(task, end=end)
    return [env.reset(), *(env.step(action) for action in actions), env.outcome()]


def demonstrated(name: str) -> tuple[Task, list[str], End]:
    end = ends_of(name)[0]
    for task in load(name).tasks(Split.TRAIN, 0, 40):
        try:
            return task, load(name).demonstrate(task, end=end), end
        except DemonstrationError:
            continue
    pytest.fail(f"the expert of {name} solves none of 40 tasks")


def test_a_new_process_plays_the_same_episodes() -> None:
    names = [name for name in (*envs.available(), *GIVEN) if not envs.missing(environment_of(name))]
    jobs = [demonstrated(name) for name in names]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as other:
        there = list(other.map(play, *zip(*jobs, strict=True)))
    assert there == [play(*job) for job in jobs]
