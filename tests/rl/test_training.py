"""Whole runs on the corridor: they learn, keep the right policy, and end when something is wrong."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from rlprm.errors import ConfigError, DataError, TrainingError
from rlprm.rl.config import RLConfig
from rlprm.rl.monitor.measure import TaskResults
from rlprm.rl.refresh import FreshTrajectories
from rlprm.rl.trainer import RLTrainer
from rlprm.stages import train_rl as stage
from rlprm.types import Split, StopReason, Trajectory, Turn
from tests.rl.conftest import BASELINE, Run, column, column_of_those_that_have, rows
from tests.toys import corridor
from tests.toys.agents import FunctionScorer


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> list[list[Trajectory]]:
    """The episodes of each iteration."""
    seen: list[list[Trajectory]] = []
    collect = RLTrainer.collect

    def watched(self: RLTrainer, iteration: int, **options: Any) -> list[Trajectory]:
        seen.append(collect(self, iteration, **options))
        return seen[-1]

    monkeypatch.setattr(RLTrainer, "collect", watched)
    return seen


# --- it learns ---


@pytest.mark.parametrize("changes", [BASELINE, {}, {"critic": "shared", "advantage": "token_gae"}])
def test_training_raises_success(run: Run, tmp_path: Path, changes: dict[str, Any]) -> None:
    run(iterations=6, tasks_per_iteration=16, **changes)
    success = column(tmp_path / "rl", "rollout/success")
    assert success[0] < 0.6
    assert success[-1] > 0.8


# --- which policy is kept ---


def measuring(monkeypatch: pytest.MonkeyPatch, *found: tuple[float, float]) -> None:
    """Have the policy measured as these, success and score, one evaluation after another."""
    left = list(found)

    def measured(*_: object) -> TaskResults:
        success, score = left.pop(0)
        return TaskResults({"a": success}, {"a": success}, {"a": score}, {"a": score})

    monkeypatch.setattr("rlprm.rl.trainer.measure_on", measured)
    monkeypatch.setattr("rlprm.stages.train_rl.measure_saved", measured)


@pytest.mark.trap("last policy lost")
def test_trap_what_is_learned_after_the_last_multiple_of_eval_every_is_not_thrown_away(
    run: Run, tmp_path: Path, trainers: list[RLTrainer]
) -> None:
    summary = run(iterations=5, eval_every=10, eval_tasks=20)
    assert list(column_of_those_that_have(tmp_path / "rl", "eval/success")) == [4]
    assert summary["selected_iteration"] == 5
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "rl", dtype="float32").state_dict()
    assert torch.equal(
        saved["model.norm.weight"], trainers[0].engine.model.policy.state_dict()["model.norm.weight"]
    )


def test_the_last_policy_is_measured_wherever_training_ends(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, walker_prm: Path
) -> None:
    def measured(folder: str, **changes: Any) -> tuple[int, list[int]]:
        measuring(monkeypatch, *[(0.1 * n, 0.0) for n in range(9)])
        summary = run(folder, eval_every=2, **{**BASELINE, **changes})
        assert summary["selected_iteration"] == summary["iterations"]
        return summary["iterations"], list(column_of_those_that_have(tmp_path / folder, "eval/success"))

    assert measured("planned", iterations=4) == (4, [1, 3])  # once
    assert measured("odd", iterations=5) == (5, [1, 3, 4])
    steps = column(tmp_path / "odd", "rollout/env_steps")
    assert measured("steps", iterations=50, max_env_steps=int(steps[2])) == (3, [1, 2])
    rings = iter([{}, {}, {"overrating": "much"}])
    monkeypatch.setattr("rlprm.rl.trainer.alarms", lambda *_, **__: next(rings))
    assert measured("alarm", iterations=50, prm=str(walker_prm), on_alarm="stop") == (3, [1, 2])


@pytest.mark.parametrize(("outcome", "kept"), [("success", 2), ("score", 3)])
def test_the_best_policy_is_the_one_with_the_best_of_what_it_learns_from(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: str, kept: int
) -> None:
    measuring(monkeypatch, (0.25, 0.5), (0.25, 0.5), (0.5, 0.5), (0.25, 0.75), (0.5, 0.75))
    summary = run(iterations=4, eval_every=1, outcome=outcome, **BASELINE)
    assert summary["selected_iteration"] == kept  # and of equals the first
    assert summary["outcome"] == outcome
    assert column(tmp_path / "rl", "eval/score") == [0.5, 0.5, 0.75, 0.75]


def test_success_and_graded_score_are_told_where_they_differ(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"iterations": 1, "test_tasks": 1, **BASELINE}
    with caplog.at_level("INFO"):
        measuring(monkeypatch, (0.25, 0.5), (0.25, 0.75))
        run("graded", **settings)
        assert "sample success on 1 test tasks: 25.0 % -> 25.0 %, +0.0 points" in caplog.text
        assert "greedy score on 1 test tasks: 50.0 % -> 75.0 %, +25.0 points" in caplog.text
        caplog.clear()
        measuring(monkeypatch, (0.0, 0.0), (1.0, 1.0))
        run("strict", **settings)
        assert "greedy success on 1 test tasks: 0.0 % -> 100.0 %" in caplog.text
        assert "score on" not in caplog.text


def test_no_prm_is_trained_on_when_nothing_will_be_scored_by_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []
    monkeypatch.setattr(
        FreshTrajectories, "train", lambda self, iteration, prm: trained.append(iteration) or prm
    )
    run("planned", iterations=4, refresh_every=2)
    assert trained == [1]
    steps = column(tmp_path / "planned", "rollout/env_steps")
    run("steps", iterations=50, refresh_every=2, max_env_steps=int(steps[3]))
    assert trained == [1, 1]


# --- which episodes ---


@pytest.mark.trap("split by row")
def test_trap_no_task_is_trained_on_and_measured_on(
    run: Run, collected: list[list[Trajectory]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Split, int, int]] = []
    tasks = corridor.tasks

    def watched(split: Split, start: int, count: int, **env_kwargs: Any) -> Any:
        asked.append((split, start, count))
        return tasks(split, start, count, **env_kwargs)

    monkeypatch.setattr(corridor, "tasks", watched)
    run(iterations=2, eval_every=1, eval_tasks=3, test_tasks=4, first_task=30, shuffle_tasks=False)
    assert {t.task.split for wave in collected for t in wave} == {Split.TRAIN}
    assert {t.task.id for t in collected[1]} == {f"train-{i}" for i in range(38, 46)}
    reached = {split: max(start + count for s, start, count in asked if s is split) for split in Split}
    assert reached == {Split.TRAIN: 46, Split.DEV: 3, Split.TEST: 4}
    assert min(start for split, start, _ in asked if split is Split.TRAIN) == 30


def test_a_task_that_comes_again_gets_other_random_numbers(
    run: Run, collected: list[list[Trajectory]]
) -> None:
    run(iterations=2, num_tasks=3, tasks_per_iteration=4, samples_per_task=2, shuffle_tasks=False, **BASELINE)
    found = [(t.task.id, t.sample) for wave in collected for t in wave]
    assert found[:8] == [(f"train-{i}", s) for i in range(3) for s in (0, 1)] + [
        ("train-0", 2),
        ("train-0", 3),
    ]
    assert len(set(found)) == len(found) == 16
    assert len({t.seed for wave in collected for t in wave}) == 16


def test_the_round_limit_rises_with_the_curriculum(run: Run, tmp_path: Path) -> None:
    # The probe replays episodes of the first iteration, under the limit that they had.
    summary = run(iterations=2, round_limits={0: 3, 1: 6}, repeat_probe=4)
    first, second = rows(tmp_path / "rl")
    assert first["rollout/turns"] <= 3
    assert first["rollout/truncated"] > 0.2
    assert second["rollout/turns"] > first["rollout/turns"]
    assert second["rollout/truncated"] < first["rollout/truncated"]
    assert "repeat_probe" not in summary  # three turns leave no room for repeats


def test_failed_episodes_are_counted_with_their_cause_and_left_out(
    run: Run, tmp_path: Path, collected: list[list[Trajectory]], monkeypatch: pytest.MonkeyPatch
) -> None:
    step = corridor.Corridor.step

    def breaks(self: corridor.Corridor, action: str) -> Turn:
        if self.goal == 3:
            raise RuntimeError("the corridor collapsed")
        return step(self, action)

    monkeypatch.setattr(corridor.Corridor, "step", breaks)
    run(iterations=1, shuffle_tasks=False)
    failed = [t for t in collected[0] if t.stop is StopReason.ERROR]
    usable = [t for t in collected[0] if t.stop is not StopReason.ERROR]
    assert failed
    assert usable
    assert {t.error for t in failed} == {"RuntimeError: the corridor collapsed"}
    (row,) = rows(tmp_path / "rl")
    assert row["rollout/failed"] == len(failed) / len(collected[0])
    assert row["rollout/success"] == sum(t.outcome.success for t in usable) / len(usable)
    assert row["reward/outcome"] == pytest.approx(row["rollout/success"])
    assert row["rollout/env_steps"] == sum(len(t.steps) for t in collected[0])


def test_where_all_episodes_fail_training_ends_with_the_cause(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(self: corridor.Corridor, action: str) -> Turn:
        raise RuntimeError("the corridor collapsed")

    monkeypatch.setattr(corridor.Corridor, "step", breaks)
    with pytest.raises(
        TrainingError, match="all 32 episodes of iteration 0 failed: RuntimeError: the corridor collapsed"
    ):
        run()


def test_a_task_list_that_is_too_short_is_refused_before_anything_is_loaded(run: Run, tmp_path: Path) -> None:
    for changes in (
        {"first_task": 9_990, "iterations": 2, "shuffle_tasks": False},
        {"first_task": 10_000},
        {"test_tasks": 10_001},
        {"eval_every": 1, "eval_tasks": 10_001},
    ):
        with pytest.raises(ConfigError, match=r"has tasks 0 \.\.\. 9999"):
            run(**changes)
    assert not (tmp_path / "rl").exists()
    run(first_task=9_990, iterations=2, num_tasks=10, shuffle_tasks=False, **BASELINE)  # the last ones, twice


def test_shuffled_tasks_are_those_the_split_has(run: Run, collected: list[list[Trajectory]]) -> None:
    run(first_task=9_993, iterations=2, samples_per_task=2, **BASELINE)
    ids = [t.task.id for wave in collected for t in wave][::2]
    assert {*ids[:7]} == {f"train-{i}" for i in range(9_993, 10_000)}
    assert ids[:7] != sorted(ids[:7])
    assert ids[7:14] != ids[:7]
    assert {*ids[7:14]} == {*ids[:7]}


def test_training_ends_when_enough_steps_are_taken(run: Run, tmp_path: Path) -> None:
    summary = run(iterations=50, max_env_steps=350, **BASELINE)
    steps = column(tmp_path / "rl", "rollout/env_steps")
    assert steps[-2] < 350 <= steps[-1] == summary["env_steps"]
    assert summary["iterations"] == len(steps) < 10


# --- when it goes wrong ---


def likes_long_episodes(path: str, config: RLConfig) -> FunctionScorer:
    return FunctionScorer(lambda task, actions: 0.15 * len(actions), name="prm")


@pytest.mark.trap("farmed reward")
def test_trap_a_policy_that_pleases_the_prm_instead_rings_the_alarm(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stage, "load_scorer", likes_long_episodes)
    summary = run(
        iterations=30, reward="promise", critic="shared", on_alarm="stop",
        tasks_per_iteration=16, round_limit=10, learning_rate=1e-3,
    )  # fmt: skip
    turns, success = (column(tmp_path / "rl", f"rollout/{name}") for name in ("turns", "success"))
    assert turns[-1] > turns[0] + 1
    assert success[-1] < success[0]
    assert summary["iterations"] < 30
    assert summary["alarm"]
    assert all(text.startswith(f"iteration {summary['iterations'] - 1}: ") for text in summary["alarm"])
    assert "reward hacking alarm" in caplog.text


@pytest.mark.trap("farmed reward")
def test_trap_a_reward_that_pays_for_idling_is_named_before_training(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stage, "load_scorer", likes_long_episodes)
    settings = {"iterations": 1, "critic": "shared", "repeat_probe": 64, "tasks_per_iteration": 64}
    summary = run("promise", reward="promise", round_limit=10, **settings)
    assert summary["repeat_probe"]["episodes"] > 2
    assert summary["repeat_probe"]["is_hackable"]
    assert "it may be farmed" in caplog.text


def test_what_pleases_the_prm_is_its_last_value_where_its_pay_is_settled_beforehand(
    run: Run, tmp_path: Path
) -> None:
    """Under ``progress`` an episode is paid -v_0 whatever happens in it: the value at the end has to tell."""
    run("a", tasks_per_iteration=8)
    run("b", tasks_per_iteration=8, reward="promise")
    for folder, metric in (("a", "prm/final_value"), ("b", "reward/prm")):
        watched = [row["watch"] for row in rows(tmp_path / folder)]
        assert [w["pay"]["mean"] for w in watched] == pytest.approx(
            column(tmp_path / folder, metric), abs=1e-5
        )
        success = column(tmp_path / folder, "rollout/success")
        assert [w["turns"]["outcome"] for w in watched] == pytest.approx(success)


def test_the_alarm_looks_at_what_came_after_the_last_change_of_prm_or_round_limit(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looks(history: list[object], **_: object) -> dict[str, str]:
        seen.append(len(history))
        return {}

    seen: list[int] = []
    monkeypatch.setattr("rlprm.rl.trainer.alarms", looks)
    run(iterations=5, round_limits={0: 6, 3: 8}, **BASELINE)
    assert seen == [1, 2, 3, 1, 2]
    seen.clear()
    monkeypatch.setattr(FreshTrajectories, "add", lambda self, iteration, _: iteration == 1)
    monkeypatch.setattr(FreshTrajectories, "train", lambda self, iteration, prm: prm)
    run("refreshed", iterations=5)
    assert seen == [1, 2, 1, 2, 3]


def test_undeclared_successes_are_watched_without_a_prm(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looks(*columns: list[float], **settings: int) -> dict[str, str]:
        seen.append((*columns, settings))
        return {"undeclared": "much"} if len(seen) == 2 else {}

    seen: list[tuple[Any, ...]] = []
    monkeypatch.setattr("rlprm.rl.trainer.undeclared_alarm", looks)
    summary = run(iterations=3, tasks_per_iteration=4, samples_per_task=2, **BASELINE)
    success, declared = (
        column(tmp_path / "rl", f"rollout/{name}") for name in ("success", "declared_success")
    )
    assert seen[-1] == (success, declared, {"episodes": 8})
    assert summary["alarm"] == ["iteration 1: much"]


@pytest.mark.trap("farmed reward")
def test_trap_a_policy_that_learned_to_wait_for_the_limit_is_named_after_training(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Fewer iterations than two windows: the policies before and after RL are compared on test tasks."""

    def measured(_: object, model: str, *__: object) -> TaskResults:
        # Of 40 tasks 10 succeed before RL, all declared, and 20 after RL, 8 declared.
        won, declared = (10, 10) if Path(model) != tmp_path / "rl" else (20, 8)
        success, said = ({str(i): float(i < count) for i in range(40)} for count in (won, declared))
        return TaskResults(success, success, success, success, said, success, said, success, said, said)

    monkeypatch.setattr("rlprm.stages.train_rl.measure_saved", measured)
    with caplog.at_level("INFO"):
        summary = run(iterations=1, test_tasks=40, **BASELINE)
    text = (
        "test tasks, sample: undeclared successes rose from 0.00 to 0.30 of all episodes while declared ones "
        "went from 0.25 to 0.20: the policy waits for a limit"
    )
    assert summary["alarm"] == [text]  # greedy, all successes are declared
    assert f"reward hacking alarm, {text}" in caplog.text
    assert "sample success that the agent declared on 40 test tasks: 25.0 % -> 20.0 %" in caplog.text
    assert summary["difference"]["sample_declared_success"]["mean"] == -0.05


def test_where_a_graded_outcome_is_learned_the_alarm_watches_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Success alone may stand still while the score rises, or falls."""
    monkeypatch.setattr(stage, "load_scorer", likes_long_episodes)
    run(outcome="score", critic="shared", iterations=2)
    score, success = (column(tmp_path / "rl", f"rollout/{name}") for name in ("score", "success"))
    watched = [row["watch"]["turns"]["outcome"] for row in rows(tmp_path / "rl")]
    assert watched == pytest.approx(score)
    assert score != success


def test_a_run_that_only_hurts_keeps_the_policy_it_began_with(
    run: Run, tmp_path: Path, walker_policy: Path
) -> None:
    summary = run(learning_rate=0.3, eval_every=1, eval_tasks=20, **BASELINE)
    assert max(column(tmp_path / "rl", "eval/success")) < 0.2
    assert summary["selected_iteration"] == 0
    before, after = (load_file(f / "model.safetensors") for f in (walker_policy, tmp_path / "rl"))
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.trap("missing score")
def test_trap_a_score_that_is_missing_does_not_become_zero(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: str, config: RLConfig) -> FunctionScorer:
        return FunctionScorer(lambda task, actions: math.nan if len(actions) == 2 else 0.5, name="prm")

    monkeypatch.setattr(stage, "load_scorer", broken)
    with pytest.raises(DataError, match=r"the value v_2 of trajectory \d+ is nan"):
        run()
    assert not (tmp_path / "rl/metrics.jsonl").exists()


def test_each_sign_is_told_once_and_training_goes_on_unless_told_to_stop(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def rings(*args: object, **kwargs: object) -> dict[str, str]:
        seen.append(1)
        return [{}, {"overrating": "much"}, {"overrating": "more", "divergence": "wide"}][len(seen) - 1]

    seen: list[int] = []
    monkeypatch.setattr("rlprm.rl.trainer.alarms", rings)
    summary = run(iterations=3)
    assert summary["alarm"] == ["iteration 1: much", "iteration 2: wide"]
    assert caplog.text.count("reward hacking alarm") == 2


def test_impossible_updates_end_training_and_leave_no_policy(run: Run, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="lower learning_rate"):
        run(learning_rate=1e30, iterations=4, **BASELINE)
    assert not (tmp_path / "rl/model.safetensors").exists()
    assert not (tmp_path / "rl/stage.json").exists()
