"""Trackers: nothing unless asked for, and what is kept on disk without a key or a network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlprm.errors import ConfigError
from rlprm.runtime import tracking
from rlprm.runtime.tracking import Tracker

COLUMNS = ["task", "success", "promise"]
ROWS = [["train-0", True, 0.25], ["train-1", False, None]]


def use(report_to: str, folder: Path) -> None:
    tracker = Tracker(report_to, name="run", config={"gamma": 0.9}, folder=folder)
    tracker.log({"rollout/success": 0.5, "ppo/stopped_early": False, "ppo/steps": 4}, 0)
    tracker.log_table("rollout/trajectories", COLUMNS, ROWS, 0)
    tracker.log({"rollout/success": 0.75}, 1)
    tracker.finish()


def test_nothing_is_written_unless_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    use("none", tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_tracker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="report_to: got 'mlflow', allowed: none, wandb, tensorboard"):
        use("mlflow", tmp_path)


def test_tensorboard_gets_numbers_and_tables(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    use("tensorboard", tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("rollout/success")] == [(0, 0.5), (1, 0.75)]
    assert [e.value for e in events.Scalars("ppo/stopped_early")] == [0.0]
    (table,) = events.Tensors("rollout/trajectories/text_summary")
    text = table.tensor_proto.string_val[0].decode()
    assert text.splitlines() == [
        "task | success | promise",
        "--- | --- | ---",
        "train-0 | True | 0.25",
        "train-1 | False | None",
    ]


@pytest.mark.slow
def test_wandb_keeps_a_run_on_disk_without_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setattr(tracking, "_has_key", lambda: False)
    try:
        use("wandb", tmp_path)
    finally:
        wandb.teardown()
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    (file,) = folder.glob("run-*.wandb")
    content = file.read_bytes()
    assert all(word in content for word in (b"rollout/success", b"0.75", b"gamma", b"rlprm"))
    (table,) = (folder / "files/media/table/rollout").glob("trajectories_0_*.table.json")
    assert json.loads(table.read_text())["data"] == ROWS


@pytest.mark.slow
def test_wandb_goes_on_with_the_run_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    ids = []
    try:
        for number, resumes in enumerate((True, True, False)):
            tracker = Tracker("wandb", name="run", config={}, folder=tmp_path / "rl", resumes=resumes)
            assert wandb.run is not None
            ids.append(wandb.run.id)
            tracker.log({"rollout/success": 0.5}, number)
            tracker.finish()
    finally:
        wandb.teardown()
    assert ids[0] == ids[1] == json.loads((tmp_path / "rl/wandb.json").read_text())["id"]
    assert ids[2] != ids[0]
    assert len(list((tmp_path / "wandb").glob(f"offline-run-*-{ids[0]}"))) in (1, 2)  # named by the second
