"""How often a policy succeeds, and whether another does so more often."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from rlprm import envs
from rlprm.launch import ALONE, Processes
from rlprm.rl.measure import Success, compare, measure, run_shared
from rlprm.types import EpisodeSetting, Split, Task, Turn
from tests.toys import corridor
from tests.toys.agents import SeededPolicy

SETTING = EpisodeSetting(round_limit=6)


class Walker(SeededPolicy):
    """Goes right or finishes, by chance; at temperature 0 it goes right."""

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__(("right", "finish"), temperature)
        self.forgotten = 0

    def at_temperature(self, temperature: float) -> Walker:
        return Walker(temperature)

    def forget(self) -> None:
        self.forgotten += 1


def tasks(count: int = 5) -> list[Task]:
    found: list[Task] = envs.load("tests.toys.corridor").tasks(Split.TEST, 0, count, length=4)
    return found


def found(policy: Any = None, *, samples: int = 3, wave_size: int = 4) -> Success:
    return measure(
        policy or Walker(), tasks(), SETTING, samples=samples, wave_size=wave_size, seed=7, processes=ALONE
    )


def test_success_is_counted_task_by_task() -> None:
    success = found()
    assert list(success.sample) == list(success.greedy) == [f"test-{i}" for i in range(5)]
    jobs = [(task, sample) for task in tasks() for sample in range(3)]
    episodes = run_shared(jobs, Walker(), SETTING, wave_size=99, seed=7, processes=ALONE)  # type: ignore[arg-type]
    for number, share in enumerate(success.sample.values()):
        own = [t.outcome.success for t in episodes[3 * number : 3 * number + 3]]
        assert share == sum(own) / 3
    assert 0 < sum(success.sample.values()) < 5
    assert set(success.greedy.values()) == {0.0}  # always right, never done


def test_waves_change_nothing() -> None:
    assert found(wave_size=1) == found(wave_size=4) == found(wave_size=100)


def test_what_is_kept_of_a_policys_turns_is_dropped() -> None:
    policy = Walker()
    run_shared([(tasks()[0], 0)], policy, SETTING, wave_size=1, seed=0, processes=ALONE)  # type: ignore[arg-type]
    assert policy.forgotten == 1


def test_each_process_runs_its_waves_and_gets_all(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [(task, sample) for task in tasks() for sample in range(2)]

    def shared(processes: Processes) -> list[Any]:
        return run_shared(jobs, Walker(), SETTING, wave_size=3, seed=1, processes=processes)  # type: ignore[arg-type]

    alone = shared(ALONE)
    held: list[list[Any]] = []

    def gather(self: Processes, own: Sequence[Any]) -> list[Any]:
        held.append(list(own))
        if len(held) < 2:
            return []
        return [held[part % 2][part // 2] for part in range(4)]

    monkeypatch.setattr(Processes, "gather", gather)
    shared(Processes(0, 2))
    assert shared(Processes(1, 2)) == alone
    assert [len(waves) for waves in held] == [2, 2]


def test_failed_episodes_count_as_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    step = corridor.Corridor.step

    def breaks(self: corridor.Corridor, action: str) -> Turn:
        if self.actions == 1:
            raise RuntimeError("the corridor collapsed")
        return step(self, action)

    monkeypatch.setattr(corridor.Corridor, "step", breaks)
    assert set(found().sample.values()) == {0.0}


def test_two_policies_are_compared_task_by_task() -> None:
    before = Success({"a": 0.0, "b": 0.5, "c": 1.0}, {"a": 0.0, "b": 0.0, "c": 1.0})
    after = Success({"a": 0.25, "b": 0.75, "c": 1.0}, {"a": 1.0, "b": 0.0, "c": 0.0})
    difference: Any = compare(before, after)
    assert difference["sample"]["mean"] == pytest.approx(1 / 6, abs=1e-4)
    # No task got worse: neither does any sample of tasks.
    assert 0.0 <= difference["sample"]["low"] < 1 / 6 < difference["sample"]["high"] <= 0.25
    assert difference["greedy"]["mean"] == 0.0
    assert difference["greedy"]["low"] < 0 < difference["greedy"]["high"]
    told: Any = after.as_json()
    assert told["tasks"] == 3
    assert told["sample"]["mean"] == pytest.approx(2 / 3, abs=1e-4)
