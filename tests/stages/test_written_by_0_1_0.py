"""Folders that rlprm 0.1.0 left behind load, are reused, and resume (``tests/fixtures/make_v0_1_0.sh``)."""

from __future__ import annotations

import json
import logging
import re
import shlex
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from rlprm import cli
from rlprm.data.label_files import LabelFile
from rlprm.data.message_counts import message_counts
from rlprm.data.store import TrajectoryStore
from rlprm.models.manifest import Manifest
from rlprm.runtime.parsing.renames import RENAMED_SETTINGS
from rlprm.scorers.checkpoint import CheckpointScorer

MADE_BY = Path(__file__).parents[1] / "fixtures" / "make_v0_1_0.sh"
ARCHIVE = Path(__file__).parents[1] / "fixtures" / "v0_1_0.tar.xz"
STRICT = ["--env_kwargs.answers", "strict"]  # the only rule of 0.1.0
EPISODES = [
    "--environment", "math", "--env_kwargs.source", "arithmetic", "--env_kwargs.depths", "[2]",
    "--env_kwargs.largest", "20", "--env_kwargs.wording", "symbolic", *STRICT, "--round_limit", "4",
]  # fmt: skip
ACTING = [*EPISODES, "--max_new_tokens", "12", "--model", "policy"]
LEARNING = [
    "--disable_tqdm", "true", "--bf16", "false", "--model", "policy", "--trajectories", "rollouts",
    "--num_train_epochs", "2", "--learning_rate", "1e-3", "--held_out_fraction", "0.25", "--seed", "0",
]  # fmt: skip
COLLECTION = ["--first_task", "1000", "--num_tasks", "24", "--samples_per_task", "4", "--wave_size", "32"]
SCALAR = ["--label_estimator", "td_gae", "--label_estimator_kwargs.lam", "0.9", "--save_strategy", "epoch"]
RL = [
    *ACTING, "--prm", "scalar_prm", "--critic", "shared", "--reward", "progress",
    "--advantage", "turn_gae", "--advantage_kwargs.lam", "0.9", "--iterations", "3",
    "--tasks_per_iteration", "4",
    "--samples_per_task", "2", "--minibatches", "2", "--learning_rate", "1e-3", "--eval_every", "2",
    "--eval_tasks", "4", "--test_tasks", "4", "--test_samples", "2", "--save_every", "1",
    "--keep_checkpoints", "3", "--repeat_probe", "2", "--wave_size", "8", "--refresh_every", "4",
    "--refresh_kwargs.label_estimator", "outcome", "--shuffle_tasks", "false",
]  # fmt: skip
OLD_DEFAULTS = {
    "train-rl": ["--reward", "progress", "--stop_on_alarm", "false", "--shuffle_tasks", "false"],
}
"""Defaults of 0.1.0, in its names, and the only order of tasks that it knew."""
FINISHED = {
    "collect": [*ACTING, *COLLECTION, "--output_dir", "rollouts"],
    "train-prm scalar": [*LEARNING, *SCALAR, "--output_dir", "scalar_prm"],
    "train-prm lm": [
        *LEARNING, "--head", "lm", "--lm_scale", "0.2", "--value_reads", "state_and_action", "--loss", "bce",
        "--activation", "sigmoid", "--relabel", "batch", "--output_dir", "likelihood_prm",
    ],
    "train-prm file": [*LEARNING, "--label_file", "estimates", "--beta", "0", "--output_dir", "pvm"],
    "estimate": [
        *ACTING, "--trajectories", "rollouts", "--num_tasks", "6", "--samples_per_task", "2", "--rollouts",
        "2", "--output_dir", "estimates",
    ],
    "probe-actions": [
        *ACTING, "--trajectories", "rollouts", "--num_states", "4", "--samples_per_state", "4",
        "--actions_per_state", "2", "--rollouts", "4", "--output_dir", "probe",
    ],
    "evaluate": [
        *ACTING, "--scorers.agentprm", "scalar_prm", "--scorers.reader", "likelihood_prm", "--num_tasks", "6",
        "--num_dev_tasks", "5", "--budgets", "1", "2", "4", "--chosen_at", "4", "--beams", "2x2",
        "--confidence_per", "token", "--with_confidence", "true", "--action_probe", "probe", "--output_dir",
        "evaluation",
    ],
    "train-rl": [*RL, "--output_dir", "rl"],
}  # fmt: skip


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders; tests that write into one do so into one that no other test reads."""
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder / "v0_1_0"


@pytest.fixture
def old(unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(unpacked)
    return unpacked


@pytest.mark.parametrize("stage", FINISHED)
def test_a_finished_stage_is_reused(old: Path, stage: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert cli.main([stage.split()[0], *FINISHED[stage]]) == 0
    assert "reusing" in caplog.text


def old_commands() -> dict[str, list[str]]:
    """Folder → the command that made it with 0.1.0, in that version's names; the policy is not made again."""
    variables: dict[str, str] = {}
    found = {}
    for line in MADE_BY.read_text().splitlines():
        name, is_variable, value = line.partition("=")
        if is_variable and name.isupper():
            variables[name] = value.strip('"')
        elif line.startswith("$RLPRM "):
            for _ in range(3):  # variables stand in one another
                line = re.sub(r"\$([A-Z]+)", lambda m: variables[m[1]], line)
            words = shlex.split(line.partition("rlprm.cli ")[2])
            found[words[-1]] = words
    return {folder: words for folder, words in found.items() if folder != "policy"}


@pytest.mark.parametrize("folder", old_commands())
def test_the_commands_of_0_1_0_name_the_same_runs(
    old: Path, folder: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    command = [*old_commands()[folder]]
    command += OLD_DEFAULTS.get(command[0], [])
    if "--environment" in command:
        command += STRICT
    assert cli.main(command) == 0
    assert "reusing" in caplog.text or command[0] == "label"  # which is quick, and made again
    names = {word.split(".")[0].removeprefix("--") for word in command if word.startswith("--")}
    for name, now in RENAMED_SETTINGS.get(command[0], {}).items():
        assert (name in names) == (f"{name} is called {now} now" in caplog.text)


@pytest.mark.parametrize("stage", ["collect", "estimate", "probe-actions", "evaluate", "train-rl"])
def test_a_run_whose_answers_are_read_otherwise_is_not_the_finished_one(
    old: Path, stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [word for word in FINISHED[stage] if word not in STRICT]
    assert cli.main([stage, *command]) == 2
    assert re.search(
        r"env_kwargs: .*'answers': 'strict'} there, .*'answers': 'flexible'} now", capsys.readouterr().err
    )


def test_the_old_commands_hold_every_name_that_has_changed() -> None:
    commands = [[*words, *OLD_DEFAULTS.get(words[0], [])] for words in old_commands().values()]
    given = {(words[0], word.split(".")[0]) for words in commands for word in words}
    assert {(stage, f"--{old}") for stage, names in RENAMED_SETTINGS.items() for old in names} <= given


def test_what_was_stored_is_read(old: Path) -> None:
    trajectories = TrajectoryStore.open("rollouts").read()
    assert len(trajectories) == 96
    counts = message_counts(trajectories, max_new_tokens=12)
    invalid = sum(not step.valid for t in trajectories for step in t.steps)
    assert sum(number for name, number in counts.items() if name.startswith("invalid_")) == invalid
    forced = sum(t.action_mask[step.end] == 0 for t in trajectories for step in t.steps)
    assert counts["cut_messages"] == forced
    labels = LabelFile.read("labels.jsonl")
    assert (labels.meta["label_estimator"], labels.meta["label_estimator_kwargs"]) == ("td_gae", {"lam": 0.8})
    manifest = Manifest.load("likelihood_prm")
    assert (manifest.head, manifest.lm_scale, manifest.relabel) == ("lm", 0.2, "batch")
    scorer = CheckpointScorer.load("prm", "likelihood_prm")
    (scores,) = scorer.score(trajectories[:1])
    assert 0.0 < scores.initial < 1.0
    assert len(scores.states) == len(scores.values) == len(trajectories[0].steps)


def test_a_killed_collection_goes_on_to_the_trajectories_of_the_whole_one(old: Path) -> None:
    assert cli.main(["collect", *ACTING, *COLLECTION, "--output_dir", "rollouts_killed"]) == 0
    whole, resumed = (TrajectoryStore.open(name).read() for name in ("rollouts", "rollouts_killed"))
    assert [(t.task, t.sample, t.seed) for t in resumed] == [(t.task, t.sample, t.seed) for t in whole]
    assert resumed[:64] == whole[:64]
    # Another kind of processor may round a sampled token differently.
    assert sum(a.token_ids == b.token_ids for a, b in zip(resumed, whole, strict=True)) >= 90


def test_a_killed_prm_goes_on_from_its_checkpoint(old: Path) -> None:
    assert cli.main(["train-prm", *LEARNING, *SCALAR, "--output_dir", "scalar_prm_killed"]) == 0
    before, after = (
        json.loads(Path(name, "stage.json").read_text())["results"]
        for name in ("scalar_prm", "scalar_prm_killed")
    )
    assert after["eval_loss"] == pytest.approx(before["eval_loss"], abs=1e-4)
    manifest = Manifest.load("scalar_prm_killed")
    assert manifest.temperature == 1.0  # 0.1.0 did not write it down
    assert manifest.env_steps == sum(len(t.steps) for t in TrajectoryStore.open("rollouts").read())
    assert replace(manifest, temperature=None, env_steps=None) == Manifest.load("scalar_prm")


def test_killed_rl_whose_critic_meant_something_else_does_not_go_on(
    old: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train-rl", *RL, "--output_dir", "rl_killed"]) == 2
    assert "an earlier version, whose critic predicted what progress pays" in capfd.readouterr().err


def test_a_folder_of_0_1_0_with_other_settings_is_still_refused(
    old: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = [*LEARNING, *SCALAR, "--label_estimator_kwargs.lam", "0.5", "--output_dir", "scalar_prm"]
    assert cli.main(["train-prm", *arguments]) == 2
    assert "label_estimator_kwargs: {'lam': 0.9} there, {'lam': 0.5} now" in capfd.readouterr().err
