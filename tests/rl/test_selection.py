"""Which episodes are learned from: tasks with a signal, and the best of k by the PRM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import rlprm.rl.trainer as module
from rlprm.errors import ConfigError
from rlprm.rl.batch import Batch
from rlprm.rl.config import RLConfig
from rlprm.rl.samplers.local import LocalSampler
from rlprm.rl.schedule import tasks_at
from rlprm.rl.selection.best_of import best_rows
from rlprm.rl.selection.difficulty import known_success, segment_since, success_by_task, tasks_by_difficulty
from rlprm.rl.selection.signal import MOST_ROUNDS, rows_with_signal, tasks_with_signal
from rlprm.types import StepScores, Trajectory
from tests.rl.conftest import Run, column, rows
from tests.toys.trajectories import trajectory

GROUP = {"reward": "outcome", "advantage": "leave_one_out", "prm": "", "samples_per_task": 2}


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """What each update learns from."""
    seen: list[Batch] = []
    update = module.update

    def watched(engine: Any, batch: Batch, *args: Any, **kwargs: Any) -> Any:
        seen.append(batch)
        return update(engine, batch, *args, **kwargs)

    monkeypatch.setattr(module, "update", watched)
    return seen


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> list[list[Trajectory]]:
    """What each call of the sampler has run."""
    seen: list[list[Trajectory]] = []
    collect = LocalSampler.collect

    def watched(self: LocalSampler, *args: Any, **kwargs: Any) -> list[Trajectory]:
        seen.append(collect(self, *args, **kwargs))
        return seen[-1]

    monkeypatch.setattr(LocalSampler, "collect", watched)
    return seen


def test_tasks_of_equal_returns_have_no_signal() -> None:
    episodes = [
        trajectory(".ac", task="mixed", success=True),
        trajectory(".ac", task="mixed", sample=1),
        *(trajectory(".ac", task="failed", sample=i) for i in range(2)),
        trajectory(".ac", task="solved", success=True),
        trajectory(".ac.ac", task="solved", success=True, sample=1),
        trajectory(".ac", task="alone", success=True),
    ]
    assert tasks_with_signal(episodes, outcome="success", gamma=1.0) == {"mixed"}
    assert rows_with_signal(episodes, outcome="success", gamma=1.0) == [0, 1]
    # The shorter success has the larger return.
    assert tasks_with_signal(episodes, outcome="success", gamma=0.9) == {"mixed", "solved"}
    assert rows_with_signal(episodes[2:4], outcome="success", gamma=1.0) == [0, 1]  # none: all stay


def test_tasks_without_a_signal_are_left_out_and_further_ones_take_their_place(
    run: Run, tmp_path: Path, batches: list[Batch], collected: list[list[Trajectory]]
) -> None:
    summary = run(iterations=3, tasks_per_iteration=6, dynamic_sampling=True, **GROUP)
    assert len(collected) > 3  # some rounds followed
    # Tasks are taken from the list one after another, and none twice.
    tasks = [t.task.id for part in collected for t in part[::2]]
    assert len(set(tasks)) == len(tasks)
    plain = run("plain", iterations=8, tasks_per_iteration=6, **{**GROUP, "learning_rate": 1e-9})
    assert plain["env_steps"] > 0
    order = [t.task.id for part in collected[-8:] for t in part[::2]]
    assert tasks == order[: len(tasks)]
    for batch in batches[:3]:
        for group in batch.groups_B.unique():
            assert len(batch.outcomes_B[batch.groups_B == group].unique()) == 2
    # Every episode counts as environment steps and in the metrics.
    every = [t for part in collected[:-8] for t in part]
    assert summary["env_steps"] == sum(len(t.steps) for t in every)
    found = rows(tmp_path / "rl")
    drawn = [row["rollout/tasks"] for row in found]
    assert sum(drawn) == len(tasks)
    successes = sum(row["rollout/success"] * 2 * count for row, count in zip(found, drawn, strict=True))
    assert successes == pytest.approx(sum(t.outcome.success for t in every))
    assert [row["rollout/learned"] * 2 * row["rollout/tasks"] for row in found] == pytest.approx(
        [len(batch) for batch in batches[:3]]
    )


def test_rounds_end_if_no_task_has_a_signal(
    run: Run, tmp_path: Path, batches: list[Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "tasks_with_signal", lambda *_, **__: set())
    run(iterations=1, tasks_per_iteration=3, dynamic_sampling=True, **GROUP)
    assert column(tmp_path / "rl", "rollout/tasks") == [3 * (1 + MOST_ROUNDS)]


def test_the_best_of_k_by_the_last_value() -> None:
    episodes = [trajectory(".ac.ac", task=task, sample=sample) for task in "ab" for sample in range(4)]
    values = [(0.9, 0.1), (0.0, 0.2), (0.5, 0.5), (0.9, 0.5), (0, 0.3), (0, 0.2), (0, 0.0), (0, 0.1)]
    scores = [StepScores(0.5, value) for value in values]
    assert best_rows(episodes, scores, 2) == [1, 2, 4, 7]
    assert best_rows(episodes, scores, 4) == [2, 4]
    assert best_rows(episodes, scores, 1) == list(range(8))
    without_first = [1, 2, 3]  # a failed one does not compete
    assert best_rows([episodes[i] for i in without_first], [scores[i] for i in without_first], 2) == [0, 1]


def test_the_best_of_k_is_cloned_and_all_k_count(
    run: Run, tmp_path: Path, batches: list[Batch], collected: list[list[Trajectory]]
) -> None:
    settings = {"reward": "outcome", "advantage": "cloning", "tasks_per_iteration": 4, "samples_per_task": 2}
    summary = run(iterations=2, best_of=3, **settings)
    assert [len(part) for part in collected] == [4 * 2 * 3] * 2
    assert [len(batch) for batch in batches] == [4 * 2] * 2
    assert summary["env_steps"] == sum(len(t.steps) for part in collected for t in part)
    assert column(tmp_path / "rl", "rollout/learned") == pytest.approx([1 / 3, 1 / 3])
    successes = [sum(t.outcome.success for t in part) / len(part) for part in collected]
    assert column(tmp_path / "rl", "rollout/success") == pytest.approx(successes)


# --- by difficulty ---


def test_a_pass_begins_with_tasks_of_middling_success_by_hand() -> None:
    # The list has 6 tasks; pass 0 in the order of the list, four of them in two iterations.
    known = {0: {}, 1: {0: 0.0, 1: 0.5, 2: 1.0, 3: 0.8}}

    def tasks(first: int, last: int) -> list[tuple[int, int]]:
        return list(
            tasks_by_difficulty(range(first, last), 6, shuffle_seed=None, success_before=known.__getitem__)
        )

    assert tasks(0, 6) == [(number, 0) for number in range(6)]
    assert tasks(6, 12) == [(number, 1) for number in (1, 3, 4, 5, 0, 2)]
    assert tasks(4, 8) == [(4, 0), (5, 0), (1, 1), (3, 1)]
    found = tasks_by_difficulty(range(6, 12), 6, shuffle_seed=5, success_before=lambda _: {})
    assert found == tasks_at(range(6, 12), 6, shuffle_seed=5)


def test_an_order_follows_from_what_was_known_before_the_pass_began() -> None:
    journal = [
        {"places": [0, 4], "task_success": {"0": 0.0, "1": 0.5}},
        {"places": [4, 8], "task_success": {"1": 1.0, "5": 0.25}},  # the pass begins at 6
        {"places": [8, 12], "task_success": {"0": 1.0}},
    ]
    assert known_success(journal, 6) == {0: 0.0, 1: 0.5}
    assert known_success(journal[:1], 6) == {0: 0.0, 1: 0.5}  # as it was in that iteration
    assert known_success(journal, 12) == {0: 1.0, 1: 1.0, 5: 0.25}
    assert known_success([], 0) == {}


def test_success_is_that_of_the_tasks_episodes() -> None:
    episodes = [trajectory(".ac", task=task, success=won) for task, won in zip("aab", (1, 0, 1), strict=True)]
    assert success_by_task(episodes, {"a": 7, "b": 3}) == {"7": 0.5, "3": 1.0}


def test_the_alarm_begins_anew_where_tasks_become_others() -> None:
    rows = [{"iteration": i, "segment": segment} for i, segment in enumerate(([0, 1], [1, 0], [1, 0]))]
    assert segment_since(rows, [1, 0], 3) == 1
    assert segment_since(rows, [1, 2], 3) == 3
    assert segment_since([], [1, 2], 0) == 0


def test_a_run_takes_tasks_of_middling_success_first_in_each_later_pass(
    run: Run, tmp_path: Path, collected: list[list[Trajectory]]
) -> None:
    settings = {**GROUP, "tasks_per_iteration": 4, "num_tasks": 12, "samples_per_task": 3}
    run(iterations=6, tasks_by_difficulty=True, **settings)
    first, second = ([t for part in collected[i : i + 3] for t in part] for i in (0, 3))
    success: dict[str, list[float]] = {}
    for t in first:
        success.setdefault(t.task.id, []).append(t.outcome.success)
    middling = {task for task, won in success.items() if 0 < sum(won) < 3}
    order = [t.task.id for t in second[::3]]
    assert 0 < len(middling) < 12
    assert set(order[: len(middling)]) == middling
    assert sorted(order) == sorted(success)  # each once
    assert [row["places"] for row in rows(tmp_path / "rl")] == [[4 * i, 4 * i + 4] for i in range(6)]


# --- what is refused ---


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"advantage": "turn_gae", "dynamic_sampling": True}, "turn_gae episodes of equal outcome teach"),
        ({"reward": "terminal", "advantage": "group", "dynamic_sampling": True, "prm": "p"}, "equal outcome"),
        ({"advantage": "cloning", "best_of": 2}, "best_of: got 2, but there is no PRM"),
        (
            {"advantage": "turn_gae", "best_of": 2, "prm": "p"},
            "turn_gae needs the probabilities of what acted",
        ),
        (
            {"advantage": "cloning", "best_of": 2, "prm": "p", "reward": "terminal"},
            "would count the PRM twice",
        ),
        (
            {"advantage": "group", "dynamic_sampling": True, "max_staleness": 1, "server": ["http://x:1"]},
            "dynamic_sampling: which tasks follow",
        ),
        (
            {"advantage": "group", "tasks_by_difficulty": True, "max_staleness": 1, "server": ["http://x:1"]},
            "tasks_by_difficulty: the success that orders",
        ),
    ],
)
def test_what_cannot_be_right_is_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        RLConfig(**{"model": "-", "reward": "outcome", **settings})
