"""From trajectories to AgentGym's format and back to a policy, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlprm import cli
from rlprm.data.store import TrajectoryStore
from rlprm.runtime.record import read_record
from tests.toys.pipeline import EPISODES, Pipeline, refused


def test_a_policy_learns_from_what_another_was_good_at(
    pipeline: Pipeline, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "good.json"
    assert cli.main(["export", "--trajectories", pipeline.rollouts, "--output", str(output)]) == 0
    rows = json.loads(output.read_text(encoding="utf-8"))
    collected = TrajectoryStore.open(pipeline.rollouts).read()
    good = [t for t in collected if t.outcome.success]
    assert 0 < len(rows) == len(good) < len(collected)
    assert all(row["success"] and row["reward"] == 1.0 for row in rows)
    arguments = [*EPISODES, "--model", pipeline.policy, "--demonstrations", str(output), "--max_steps", "1",
                 "--max_length", "512", "--disable_tqdm", "true", "--bf16", "false"]  # fmt: skip
    assert cli.main(["sft", *arguments, "--output_dir", str(tmp_path / "policy")]) == 0
    assert read_record(tmp_path / "policy")["results"]["demonstrations"] == len(good)


def test_failures_are_written_when_asked_for(pipeline: Pipeline, tmp_path: Path) -> None:
    output = tmp_path / "all.json"
    arguments = ["--trajectories", pipeline.rollouts, "--only_successes", "false", "--output", str(output)]
    assert cli.main(["export", *arguments]) == 0
    rows = json.loads(output.read_text(encoding="utf-8"))
    assert len(rows) == len(TrajectoryStore.open(pipeline.rollouts).read())
    assert {row["success"] for row in rows} == {True, False}


def test_mistakes_are_one_line(pipeline: Pipeline, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "trajectories: nothing given" in refused(capfd, "export")
    assert "no trajectories at nowhere" in refused(capfd, "export", "--trajectories", "nowhere")
    sft = ["sft", *EPISODES, "--output_dir", str(tmp_path / "out"), "--demonstrations"]
    assert "no file or folder 'nowhere.json'" in refused(capfd, *sft, "nowhere.json")
    (tmp_path / "bad.json").write_text('[{"item_id": "corridor_1", "conversations": [{"from": "robot"}]}]')
    line = refused(capfd, *sft, str(tmp_path / "bad.json"))
    assert "bad.json, item 1 ('corridor_1'), message 1: from: got 'robot'" in line
    assert not (tmp_path / "out").exists()
