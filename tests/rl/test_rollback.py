"""``on_alarm: rollback``: back to the whole state of the best dev result, at a lower rate, some times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rlprm.errors import ConfigError
from rlprm.rl.config import RLConfig
from rlprm.rl.trainer import RLTrainer
from rlprm.runtime.overwrite import foreign_files
from tests.rl.conftest import Run, rows
from tests.rl.test_resume import assert_same, kill

SETTINGS: dict[str, Any] = {
    "iterations": 5, "tasks_per_iteration": 4, "save_every": 2, "eval_every": 5, "eval_tasks": 4,
    "on_alarm": "rollback", "critic_warmup_iterations": 0, "rollback_factor": 0.25,
}  # fmt: skip


def ring(monkeypatch: pytest.MonkeyPatch, *iterations: int) -> None:
    """Let the alarm ring after some iterations."""

    def ringing(_: RLTrainer, iteration: int, *__: Any) -> dict[str, str]:
        return {"turns": "rose"} if iteration in iterations else {}

    monkeypatch.setattr(RLTrainer, "_alarms", ringing)


def weights(trainer: RLTrainer) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in trainer.engine.model.policy.named_parameters()}


def test_the_run_goes_back_to_the_best_policy_with_its_optimiser_and_resumes_exactly(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring(monkeypatch, 2)
    at: list[dict[str, torch.Tensor]] = []
    moments: list[int] = []
    iterate = RLTrainer._iterate

    def watched(self: RLTrainer, iteration: int) -> Any:
        at.append(weights(self))
        moments.append(len(self.engine.optimizer.optimizer.state))  # type: ignore[attr-defined]
        return iterate(self, iteration)

    monkeypatch.setattr(RLTrainer, "_iterate", watched)
    summary = run("whole", **SETTINGS)
    monkeypatch.setattr(RLTrainer, "_iterate", iterate)
    assert not all(torch.equal(at[2][name], weight) for name, weight in at[0].items())
    assert all(torch.equal(at[3][name], weight) for name, weight in at[0].items()), "the policy before RL"
    assert moments[0] == moments[3] == 0 < moments[2]
    found = rows(tmp_path / "whole")
    assert [row.get("rollback") for row in found] == [None, None, 0, None, None]
    assert [row["ppo/learning_rate"] for row in found] == pytest.approx([1e-3] * 3 + [2.5e-4] * 2)
    assert summary["rollbacks"] == 1
    assert summary["iterations"] == 5
    assert foreign_files(tmp_path / "whole", "train-rl") == []
    assert load_file(tmp_path / "whole/model.safetensors")

    kill(monkeypatch, RLTrainer, "_iterate", lambda iteration: iteration == 3)  # the checkpoint has two
    with pytest.raises(KeyboardInterrupt):
        run("killed", **SETTINGS)
    monkeypatch.setattr(RLTrainer, "_iterate", iterate)
    run("killed", **SETTINGS)
    assert_same(tmp_path / "whole", tmp_path / "killed")


def test_after_the_last_rollback_an_alarm_ends_training(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring(monkeypatch, 0, 1, 2)
    summary = run(**{**SETTINGS, "save_every": 0}, max_rollbacks=1)
    assert summary["iterations"] == 2
    assert summary["rollbacks"] == 1
    assert [row.get("rollback") for row in rows(tmp_path / "rl")] == [0, None]


def test_a_run_that_has_kept_no_whole_state_goes_on_with_a_warning(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kill(monkeypatch, RLTrainer, "_iterate", lambda iteration: iteration == 2)
    with pytest.raises(KeyboardInterrupt):
        run(**{**SETTINGS, "on_alarm": "warn", "iterations": 3})
    monkeypatch.undo()
    ring(monkeypatch, 2)
    summary = run(**{**SETTINGS, "iterations": 4})
    assert summary["rollbacks"] == 0
    assert "no rollback: the run has kept no whole state of its best policy" in caplog.text


@pytest.mark.parametrize("changes", [{"eval_every": 0}, {"eval_every": 2, "select": "last"}])
def test_without_dev_results_it_is_refused(settings: dict[str, Any], changes: dict[str, Any]) -> None:
    with pytest.raises(
        ConfigError, match="on_alarm: got rollback, which needs eval_every above 0 and select"
    ):
        RLConfig(**{**settings, **changes, "on_alarm": "rollback"})
