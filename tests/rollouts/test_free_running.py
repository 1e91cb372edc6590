"""Episodes that do not wait for each other are those of the lock step; a failure ends one of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import pytest

from rlprm.data.conversation import Conversation
from rlprm.data.store import TrajectoryStore
from rlprm.errors import DataError
from rlprm.policies.base import Completion
from rlprm.policies.server.loop import LoopThread
from rlprm.rollouts.collection import collect
from rlprm.rollouts.monte_carlo import estimate, replay
from rlprm.rollouts.waves import finish_episodes, rollout
from rlprm.scorers.shortest import Shortest
from rlprm.search import beam, best_of_n, halving, puct, resample, step_best_of_k
from rlprm.types import EpisodeSetting, Split, StopReason, Task, Trajectory
from tests.toys import agents, corridor
from tests.toys.corridor import jobs

_T = TypeVar("_T")
CHAT = EpisodeSetting(round_limit=5)


class FreePolicy(agents.SeededPolicy):
    """The seeded policy as a server would be asked; counts how many conversations it acts in at one time."""

    def __init__(self, *, fails_at: int = 0, error: Exception | None = None) -> None:
        super().__init__()
        self._loop = LoopThread()
        self.acting = self.most = self.count = 0
        self.fails_at, self.error = fails_at, error

    async def act_one(self, conversation: Conversation, seed: int) -> Completion:
        self.acting += 1
        self.most = max(self.most, self.acting)
        self.count += 1
        count = self.count
        await asyncio.sleep(0.001 * (seed % 3))
        self.acting -= 1
        if count == self.fails_at and self.error is not None:
            raise self.error
        return super().act([conversation], [seed])[0]

    def submit(self, coroutine: Coroutine[Any, Any, _T]) -> Future[_T]:
        return self._loop.submit(coroutine)


class FailingPolicy(agents.SeededPolicy):
    """Raises for every call with the conversation of one task."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task

    def act(self, conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[Completion]:
        if any(c.owner == (self.task.environment, self.task.id) for c in conversations):
            raise RuntimeError("out of memory")
        return super().act(conversations, seeds)


def stored(folder: Path, policy: Any, wave_size: int = 6) -> list[Trajectory]:
    tasks = corridor.tasks(Split.TRAIN, 0, 5)
    store = collect(
        policy, tasks, CHAT, folder=str(folder), samples_per_task=4, wave_size=wave_size, seed=3, meta={}
    )
    return store.read()


def test_the_same_episodes_as_in_lock_step() -> None:
    free = FreePolicy()
    assert rollout(jobs(), free, CHAT) == rollout(jobs(), agents.SeededPolicy(), CHAT)
    assert free.most > 4


def test_a_collection_is_that_of_the_lock_step_and_knows_no_wave(tmp_path: Path) -> None:
    free = FreePolicy()
    got = stored(tmp_path / "free", free)
    assert got == stored(tmp_path / "lock", agents.SeededPolicy())
    assert free.most <= 6
    assert sorted(p.name for p in (tmp_path / "free").iterdir()) == sorted(
        p.name for p in (tmp_path / "lock").iterdir()
    )


def test_an_interrupted_collection_goes_on_to_the_same_result(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the end"):
        stored(tmp_path / "a", FreePolicy(fails_at=40, error=DataError("the end")))
    assert 0 < len(TrajectoryStore.open(tmp_path / "a").read()) < 20  # waves are stored as they end
    assert stored(tmp_path / "a", FreePolicy()) == stored(tmp_path / "b", agents.SeededPolicy())


def test_a_failed_episode_is_run_again(tmp_path: Path) -> None:
    first = stored(tmp_path / "a", FreePolicy(fails_at=7, error=RuntimeError("a bug")))
    assert [t.error for t in first if t.stop is StopReason.ERROR] == ["the policy: RuntimeError: a bug"]
    assert stored(tmp_path / "a", FreePolicy()) == stored(tmp_path / "b", agents.SeededPolicy())
    assert len(TrajectoryStore.open(tmp_path / "a").read()) == 20


def test_estimates_are_those_of_the_lock_step() -> None:
    (trajectory,) = rollout(jobs(1, 1), agents.SeededPolicy(), CHAT)
    policies = (FreePolicy(), agents.SeededPolicy())
    free, lock = (estimate(replay(trajectory, CHAT, policy), policy, 4) for policy in policies)
    assert free == lock


def test_progress_counts_down() -> None:
    policy = FreePolicy()
    (trajectory,) = rollout(jobs(1, 1), policy, CHAT)
    left: list[int] = []
    states = replay(trajectory, CHAT, policy)[:1]
    finish_episodes([states[0].fork(seed) for seed in range(5)], policy, left.append)
    assert left == [4, 3, 2, 1, 0]


@pytest.mark.parametrize("policy", [FreePolicy, agents.SeededPolicy])
def test_every_episode_is_counted_when_it_ends(policy: type[agents.SeededPolicy]) -> None:
    ended: list[int] = []
    rollout(jobs(), policy(), CHAT, on_end=ended.append)
    assert sum(ended) == len(jobs())
    assert len(ended) > 2  # not all at the end
    assert min(ended) > 0


def test_no_thread_is_left() -> None:
    before = set(threading.enumerate())
    rollout(jobs(), FreePolicy(), CHAT)
    begun = [t for t in set(threading.enumerate()) - before if t.name.startswith("environments")]
    for thread in begun:  # nobody waits for them, but none of them is kept
        thread.join(timeout=20)
    assert not any(thread.is_alive() for thread in begun)


def test_a_policy_that_fails_for_one_task_loses_its_episodes_alone() -> None:
    bad = jobs()[4][0]
    done = rollout(jobs(), FailingPolicy(bad), CHAT)
    whole = rollout(jobs(), agents.SeededPolicy(), CHAT)
    for a, b in zip(done, whole, strict=True):
        if a.task.id == bad.id:
            assert a.stop is StopReason.ERROR
            assert a.error == "the policy: RuntimeError: out of memory"
            assert a.steps == ()
        else:
            assert a == b


def test_a_policy_that_fails_for_all_is_a_bug() -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        rollout(jobs(1), FailingPolicy(jobs()[0][0]), CHAT)


@pytest.mark.parametrize("module", [beam, best_of_n, halving, puct, resample, step_best_of_k])
def test_a_search_goes_on_without_the_task_that_fails(module: Any) -> None:
    tasks = corridor.tasks(Split.TRAIN, 0, 3)
    failing, whole = FailingPolicy(tasks[1]), agents.SeededPolicy()
    found, expected = (
        module.search(tasks, policy, Shortest(), CHAT, run_seed=1, budget=40) for policy in (failing, whole)
    )
    assert found[1].trajectory.stop is StopReason.ERROR
    assert [found[i].trajectory for i in (0, 2)] == [expected[i].trajectory for i in (0, 2)]


def test_an_environment_that_ends_the_program_hangs_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(self: object, action: str) -> None:
        raise SystemExit(3)

    monkeypatch.setattr(corridor.Corridor, "step", leave)
    with pytest.raises(RuntimeError, match="ended the program: SystemExit: 3"):
        rollout(jobs(), FreePolicy(), CHAT)
