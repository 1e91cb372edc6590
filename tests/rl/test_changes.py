"""A run goes on with other settings if they decide nothing of its past."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlprm.errors import ConfigError, MismatchError
from rlprm.rl.config import RLConfig
from rlprm.rl.state import FUTURE, RunState, changes, is_extension, with_changes
from rlprm.rl.trainer import RLTrainer
from rlprm.runtime.files import read_json
from rlprm.runtime.settings import declarations
from tests.rl.conftest import BASELINE, Run, column, rows
from tests.rl.test_resume import kill, without_time

PAST = {"iterations": 4, "learning_rate": 1e-3, "gamma": 1.0, "max_env_steps": 0}
KEPT: dict[str, Any] = {"save_every": 1, "tasks_per_iteration": 4, **BASELINE}


def test_only_settings_that_exist_may_change() -> None:
    assert declarations(RLConfig).keys() >= FUTURE


def test_what_decides_the_future_is_told_and_what_decides_the_past_is_refused() -> None:
    assert changes("it was made", PAST, PAST) == {}
    changed = changes("it was made", PAST, {**PAST, "iterations": 9, "learning_rate": 1e-4})
    assert changed == {"iterations": (4, 9), "learning_rate": (1e-3, 1e-4)}
    with pytest.raises(
        MismatchError, match=r"it was made with other settings \(gamma: 1\.0 there, 0\.9 now\)"
    ):
        changes("it was made", PAST, {**PAST, "iterations": 9, "gamma": 0.9})


@pytest.mark.parametrize(
    ("now", "goes_on"),
    [
        ({}, False),
        ({"iterations": 5}, True),
        ({"iterations": 3}, False),
        ({"learning_rate": 1.0}, False),
        ({"max_env_steps": 10}, False),
        ({"iterations": 5, "max_env_steps": 10}, False),
    ],
)
def test_a_finished_run_goes_on_if_it_is_allowed_more(now: dict[str, Any], goes_on: bool) -> None:
    assert is_extension(PAST, {**PAST, **now}) is goes_on


def test_no_limit_is_more_than_a_limit() -> None:
    limited = {**PAST, "max_env_steps": 100}
    assert is_extension(limited, {**PAST, "max_env_steps": 200})
    assert is_extension(limited, PAST)


def test_the_state_from_which_a_changed_run_goes_on() -> None:
    state = RunState(3, best_iteration=2, best_success=0.5, watched_from=1)
    assert with_changes(state, {}, factor=0.25) == state
    longer = with_changes(state, {"iterations": (4, 9)}, factor=0.25)
    assert (longer.rate_from, longer.rate_factor, longer.watched_from) == (3, 0.25, 3)
    assert longer.best_iteration == 2
    # Results on other dev tasks are not compared with those of before.
    elsewhere = with_changes(state, {"eval_tasks": (8, 16)}, factor=0.25)
    assert (elsewhere.best_iteration, elsewhere.best_success) == (-1, -1.0)
    assert (elsewhere.rate_from, elsewhere.rate_factor) == (0, 1.0)
    with pytest.raises(ConfigError, match=r"iterations: got 2, allowed: 3 \(those done\) or more"):
        with_changes(state, {"iterations": (4, 2)}, factor=0.25)


def test_a_killed_run_goes_on_with_another_rate_and_says_so(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kill(monkeypatch, RLTrainer, "_iterate", lambda iteration: iteration == 2)
    with pytest.raises(KeyboardInterrupt):
        run(iterations=4, learning_rate=1e-3, **KEPT)
    monkeypatch.undo()
    before = rows(tmp_path / "rl")
    run(iterations=4, learning_rate=5e-4, wave_size=3, **KEPT)
    after = rows(tmp_path / "rl")
    assert after[:2] == before
    assert after[2]["changed"] == {
        "learning_rate": [1e-3, 5e-4],
        "wave_size": [after[2]["changed"]["wave_size"][0], 3],
    }
    assert "changed" not in after[3]
    assert column(tmp_path / "rl", "ppo/learning_rate") == [1e-3, 1e-3, 5e-4, 5e-4]
    assert "from here on learning_rate is 0.0005, not 0.001" in caplog.text


def test_a_finished_run_gets_more_iterations(run: Run, tmp_path: Path) -> None:
    first = run(iterations=2, lr_schedule="linear", learning_rate=1e-3, **KEPT)
    begun = rows(tmp_path / "rl")
    assert first["iterations"] == 2
    second = run(iterations=4, lr_schedule="linear", learning_rate=1e-3, **KEPT)
    assert second["iterations"] == 4
    found = rows(tmp_path / "rl")
    assert found[:2] == begun
    assert found[2]["changed"] == {"iterations": [2, 4]}
    # A line to 0 at iteration 2, then from its last factor to 0 at iteration 4.
    assert column(tmp_path / "rl", "ppo/learning_rate") == [1e-3, 5e-4, 5e-4, 2.5e-4]
    assert read_json(tmp_path / "rl/summary.json")["iterations"] == 4
    again = run(iterations=4, lr_schedule="linear", learning_rate=1e-3, **KEPT)
    assert again == second  # reused
    with pytest.raises(MismatchError, match="holds a finished run with other settings"):
        run(iterations=3, lr_schedule="linear", learning_rate=1e-3, **KEPT)


def test_a_run_of_a_constant_rate_that_is_prolonged_is_the_longer_run(run: Run, tmp_path: Path) -> None:
    run("prolonged", iterations=2, **KEPT)
    run("prolonged", iterations=4, **KEPT)
    run("whole", iterations=4, **KEPT)
    one, other = (
        [{k: v for k, v in row.items() if k != "changed"} for row in without_time(rows(tmp_path / name))]
        for name in ("prolonged", "whole")
    )
    assert one == other


def test_a_finished_run_without_a_checkpoint_cannot_go_on(run: Run) -> None:
    settings = {**KEPT, "save_every": 0, "iterations": 1}
    run(**settings)
    with pytest.raises(ConfigError, match="holds a finished run without a checkpoint"):
        run(**{**settings, "iterations": 2})


def test_the_policy_before_rl_is_measured_again_on_other_test_tasks(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**KEPT, "iterations": 3, "test_samples": 1}
    kill(monkeypatch, RLTrainer, "_iterate", lambda iteration: iteration == 2)
    with pytest.raises(KeyboardInterrupt):
        run(**settings, test_tasks=3)
    monkeypatch.undo()
    summary = run(**settings, test_tasks=5)
    assert (summary["before"]["tasks"], summary["after"]["tasks"]) == (5, 5)
