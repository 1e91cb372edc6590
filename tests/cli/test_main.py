"""The command line: help is fast, a mistake is one line and status 2, a bug keeps its traceback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rlprm import __version__, cli
from rlprm.data.store import TrajectoryStore
from rlprm.stages import collect, label
from tests.toys.pipeline import EPISODES, Pipeline, refused

ROOT = Path(__file__).parents[2]
SERVERS = {"serve", "serve-prm"}
"""Stages that answer requests and write no files."""


def shell(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "rlprm.cli", *arguments]
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], []])
def test_help_names_every_stage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 0
    output = capsys.readouterr().out
    for stage in cli._STAGES:
        assert f"\n  {stage} " in output


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["no-such-stage"]])
def test_quick_answers_load_no_library(arguments: list[str]) -> None:
    script = f"""
import sys
from rlprm import cli
cli.main({arguments!r})
heavy = sorted({{"torch", "transformers", "trl", "datasets", "matplotlib"}} & sys.modules.keys())
assert not heavy, heavy
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("stage", cli._STAGES)
def test_every_stage_lists_its_settings(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([stage, "--help"])
    assert caught.value.code == 0
    output = capsys.readouterr().out
    assert f"usage: rlprm {stage}" in output
    assert ("--output" in output) == (stage not in SERVERS)


def test_a_mistake_is_one_line_in_a_fresh_process(tmp_path: Path) -> None:
    done = shell("collect", "--model", "./runs/nowhere", "--output_dir", str(tmp_path / "out"))
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "rlprm: ArtifactError: no model at './runs/nowhere': the folder does not exist"
    ]
    assert done.stdout == ""
    assert not (tmp_path / "out").exists()


def test_an_unknown_stage(capfd: pytest.CaptureFixture[str]) -> None:
    line = refused(capfd, "trian-prm", "--beta", "1")
    assert "unknown stage 'trian-prm'" in line
    assert "train-prm" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["collect", "--config", "missing.yaml"], "cannot read the configuration missing.yaml"),
        (["collect", "--config", "bad.yaml"], "num_tasks: expected int, got list [3]"),
        (["collect", "--config", "broken.yaml"], "broken.yaml is not valid YAML"),
        (["collect", "--config", "list.yaml"], "must hold a mapping"),
        (["collect", "--config", "unknown.yaml"], "did you mean 'temperature'?"),
        (
            ["collect", "--num_task", "3"],
            "unknown setting 'num_task' in the command line; did you mean 'num_",
        ),
        (["collect", "--model", "m", "--num_tasks", "many"], "num_tasks: expected int, got str 'many'"),
        (["collect", "--model", "m", "--end", "never"], "end: got 'never', allowed: on_success, declared"),
        (["collect", "--model", "m", "--temperature", "nan"], "temperature: got nan, allowed: 0 or more"),
        (["train-prm", "--trajectories", "t", "--model", "m", "--beta", "-1"], "beta: got -1.0"),
        (["train-prm", "--trajectories", "t", "--model", "m", "--beta", "inf"], "beta: got inf"),
        (["train-prm", "--trajectories", "t", "--model", "m", "--num_train_epochs", "0"], "allowed: above 0"),
        (["sft", "--num_train_epochs", "0"], "num_train_epochs: got 0.0, allowed: above 0"),
        (["train-prm", "--trajectories", "nowhere", "--model", "m"], "no trajectories at nowhere"),
        (["label", "--trajectories", "nowhere"], "no trajectories at nowhere"),
        (["label", "--trajectories", "t", "--label_estimator", "td_gae"], "name a PRM with --model"),
        (["evaluate", "--model", "m"], "scorers: nothing given"),
        (["evaluate", "--model", "nowhere", "--scorers.a", "prm"], "no model at 'nowhere'"),
        (["quickstart", "--recipes", "nowhere"], "no recipes at 'nowhere'"),
    ],
)
def test_mistakes_in_settings(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.yaml").write_text("model: m\nnum_tasks: [3]\n")
    (tmp_path / "broken.yaml").write_text("model: [m\n")
    (tmp_path / "list.yaml").write_text("- model\n")
    (tmp_path / "unknown.yaml").write_text("temprature: 1.0\n")
    before = set(tmp_path.rglob("*"))
    assert message in refused(capfd, *arguments)
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["--env_kwargs.levels", "[NoSuchLevel]"], "NoSuchLevel"),
        (["--environment", "no_such_world"], "unknown environment 'no_such_world'"),
        (["--environment", "tests.toys.corridor", "--env_kwargs.size", "4"], "unknown settings ['size']"),
    ],
)
def test_an_unknown_world(
    settings: list[str], message: str, pipeline: Pipeline, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    line = refused(capfd, "collect", "--model", pipeline.policy, *settings, "--output_dir", str(output))
    assert message in line
    assert not output.exists()


def test_a_prompt_longer_than_the_context(
    pipeline: Pipeline, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    arguments = [*EPISODES, "--model", pipeline.policy, "--context_length", "40", "--max_new_tokens", "32"]
    assert cli.main(["collect", *arguments, "--output_dir", str(tmp_path / "out")]) == 2
    assert "does not fit into the context of 40" in capfd.readouterr().err.splitlines()[-1]
    assert not list((tmp_path / "out").glob("wave-*"))
    assert not (tmp_path / "out/stage.json").exists()


def test_data_without_trajectories(
    pipeline: Pipeline, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    TrajectoryStore.create(tmp_path / "empty", TrajectoryStore.open(pipeline.rollouts).meta)
    for stage in ("train-prm", "label"):
        arguments = ["--trajectories", str(tmp_path / "empty"), "--model", pipeline.policy]
        arguments += ["--output_dir" if stage == "train-prm" else "--output", str(tmp_path / "out")]
        assert "holds no trajectories" in refused(capfd, stage, *arguments)
        assert not (tmp_path / "out").exists()


def test_a_loss_that_is_not_finite(
    pipeline: Pipeline, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--trajectories", pipeline.rollouts, "--model", pipeline.policy, "--output_dir"]
    arguments += [
        str(tmp_path / "out"),
        "--learning_rate",
        "1e30",
        "--optim",
        "sgd",
        "--disable_tqdm",
        "true",
    ]
    line = refused(capfd, "train-prm", *arguments, "--bf16", "false", "--num_train_epochs", "3")
    assert "TrainingError" in line
    assert "lower learning_rate" in line
    assert not {p.name for p in (tmp_path / "out").rglob("*")} - {"run.json"}


def test_a_folder_that_holds_another_run(
    pipeline: Pipeline, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shutil.copytree(pipeline.orm, tmp_path / "orm")
    written = (tmp_path / "orm/model.safetensors").stat().st_mtime_ns
    arguments = ["--trajectories", pipeline.rollouts, "--model", pipeline.policy, "--bf16", "false"]
    line = refused(capfd, "train-prm", *arguments, "--output_dir", str(tmp_path / "orm"))
    assert "holds a finished run with other settings" in line
    assert (tmp_path / "orm/model.safetensors").stat().st_mtime_ns == written


def test_a_folder_that_cannot_be_made(
    pipeline: Pipeline, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    output = str(tmp_path / "file")
    line = refused(capfd, "collect", "--model", pipeline.policy, *EPISODES, "--output_dir", output)
    assert line.startswith(f"rlprm: FileExistsError: {output}: ")
    line = refused(capfd, "label", "--trajectories", pipeline.rollouts, "--output", str(tmp_path))
    assert tmp_path.name in line


@pytest.mark.parametrize("stage", ["collect", "train-rl"])
def test_a_context_longer_than_the_models(
    stage: str, pipeline: Pipeline, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = ["--context_length", "100000", "--output_dir", str(tmp_path / "out")]
    if stage == "train-rl":
        settings += ["--prm", pipeline.agentprm]
    line = refused(capfd, stage, "--model", pipeline.policy, *EPISODES, *settings)
    assert "context_length: got 100000, allowed: up to the model's" in line


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(config: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(label, "run", fail)
    with pytest.raises(ValueError, match="a bug"):
        cli.main(["label", "--trajectories", "t"])


def test_an_interrupted_run_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupt(config: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(collect, "run", interrupt)
    assert cli.main(["collect", "--model", "m"]) == 130
    assert capfd.readouterr().err.splitlines() == ["rlprm: interrupted; run the same command again to go on"]


def test_label_from_the_command_line(pipeline: Pipeline, tmp_path: Path) -> None:
    output = tmp_path / "labels.jsonl"
    arguments = [
        "--trajectories",
        pipeline.rollouts,
        "--label_estimator",
        "td_gae",
        "--model",
        pipeline.agentprm,
    ]
    arguments += ["--label_estimator_kwargs.lam", "0.5", "--output", str(output)]
    assert cli.main(["label", *arguments]) == 0
    assert all(json.loads(line)["promise"] for line in output.read_text().splitlines())
