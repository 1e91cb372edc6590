"""Stored labels train as the estimator that made them; labels that do not belong are refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rlprm.data.label_files import LABELS, LabelFile, write_labels
from rlprm.data.store import TrajectoryStore
from rlprm.errors import DataError, MismatchError
from rlprm.labels.base import from_step_labels
from rlprm.models.manifest import Manifest
from rlprm.prm.config import PRMConfig
from rlprm.prm.stored import StoredLabels, labelled_trajectories
from rlprm.runtime.record import read_record
from rlprm.stages import label
from rlprm.stages import train_prm as stage
from rlprm.stages.settings import LabelConfig
from rlprm.types import StepLabels, Trajectory
from tests.prm import toy
from tests.prm.toy import Build, store

META = {
    "label_estimator": "monte_carlo",
    "label_estimator_kwargs": {"rollouts": 4, "hard": False},
    "outcome": "success",
}


@pytest.fixture(scope="module")
def rollouts(tmp_path_factory: pytest.TempPathFactory) -> str:
    return store(tmp_path_factory.mktemp("rollouts"), toy.separable(10))


def returns(t: Trajectory) -> StepLabels:
    values = len(t.steps) + 1
    return StepLabels((float(t.outcome.success),) * values, (), (1.0,) * values)


def write(path: Path, trajectories: Sequence[Trajectory], **changes: Any) -> str:
    write_labels(path, trajectories, [returns(t) for t in trajectories], **{**META, **changes})
    return str(path)


def trained(rollouts: str, tiny_folder: Path, output: Path, **settings: Any) -> dict[str, Any]:
    """Train, and return every logged number that does not depend on the clock."""
    config: PRMConfig = toy.config(
        output, trajectories=rollouts, model=str(tiny_folder), num_train_epochs=2, logging_steps=1,
        eval_strategy="epoch", optim="adamw_torch", held_out_fraction=0.3, save_strategy="epoch", **settings,
    )  # fmt: skip
    stage.run(config)
    state = json.loads(next(output.glob("checkpoint-*/trainer_state.json")).read_text())
    names = ("loss", "grad_norm", "eval_loss", "eval_brier")
    return {"log": [{k: row[k] for k in names if k in row} for row in state["log_history"]],
            "loss": read_record(output)["results"]["eval_loss"]}  # fmt: skip


@pytest.mark.parametrize("reads", ["action", "state_and_action"])
@pytest.mark.parametrize("label_estimator", ["outcome", "returns"])
def test_labels_of_an_estimator_train_exactly_as_the_estimator_does(
    rollouts: str, tiny_folder: Path, tmp_path: Path, label_estimator: str, reads: str
) -> None:
    file = tmp_path / "labels.jsonl"
    label.run(LabelConfig(trajectories=rollouts, label_estimator=label_estimator, output=str(file)))
    made = trained(
        rollouts, tiny_folder, tmp_path / "made", label_estimator=label_estimator, value_reads=reads
    )
    stored = trained(rollouts, tiny_folder, tmp_path / "stored", label_file=str(file), value_reads=reads)
    assert len(made["log"]) > 4
    assert stored == made
    manifest = Manifest.load(tmp_path / "stored")
    assert (manifest.label_estimator, manifest.label_estimator_kwargs) == (label_estimator, {})
    assert (manifest.beta, manifest.cold_start_epochs) == (0.0, 0)


def test_labels_of_their_own_teach_what_they_say(build: Build) -> None:
    data = toy.separable(8)
    upside_down = [
        replace(row, promise=tuple(1 - target for target in row.promise)) for row in map(returns, data)
    ]
    batch = from_step_labels(upside_down)
    trainer = build(
        data, head_seed=None, stored=StoredLabels(batch, batch), num_train_epochs=6, learning_rate=2e-3,
        optim="adamw_torch",
    )  # fmt: skip
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_loss"] < 0.5 * before
    assert after["eval_auc_last"] < 0.1


def test_stored_progress_counts_with_beta(build: Build) -> None:
    data = toy.separable(4)
    stored = toy.stored_labels(data)
    with_it, without = (
        build(data, folder=str(beta), stored=stored, beta=beta).evaluate()["eval_loss"] for beta in (1.0, 0.0)
    )
    assert with_it > without
    bare = [StepLabels((0.5,) * (len(t.steps) + 1), (), (1.0,) * (len(t.steps) + 1)) for t in data]
    batch = StoredLabels(*[from_step_labels(bare)] * 2)
    losses = {
        build(data, folder=f"b{beta}", stored=batch, beta=beta).evaluate()["eval_loss"] for beta in (1.0, 0.0)
    }
    assert len(losses) == 1


def test_there_is_no_cold_start(build: Build) -> None:
    data = toy.separable(4)
    stored = toy.stored_labels(data)
    trainer = build(data, stored=stored, cold_start_epochs=5, num_train_epochs=1)
    assert not trainer.label_table.is_cold
    batch = trainer.batch_of((3, 0))
    trainer.start_epoch(1)
    targets = trainer.label_table.labels_of(batch, torch.zeros(batch["positions"].shape[:2]))
    for row, index in enumerate((3, 0)):
        values = len(data[index].steps) + 1
        assert torch.equal(targets.promise[row, :values], stored.train.promise[index, :values])
        assert torch.equal(targets.progress[row, : values - 1], stored.train.progress[index, : values - 1])


def test_what_the_file_says_goes_into_the_manifest_and_missing_trajectories_are_counted(
    rollouts: str, tiny_folder: Path, tmp_path: Path
) -> None:
    trajectories = TrajectoryStore.open(rollouts).read()
    file = write(tmp_path / LABELS, [t for t in trajectories if t.sample < 3])
    trained(rollouts, tiny_folder, tmp_path / "pvm", label_file=str(tmp_path))
    manifest = Manifest.load(tmp_path / "pvm")
    assert (manifest.label_estimator, manifest.label_estimator_kwargs) == (
        META["label_estimator"],
        META["label_estimator_kwargs"],
    )
    record = read_record(tmp_path / "pvm")
    assert record["results"]["unlabelled"] == 10
    assert record["results"]["trajectories"] + record["results"]["held_out"] == 30
    # Other labels at the same place are other settings.
    write(Path(file), trajectories, label_estimator_kwargs={"rollouts": 8, "hard": False})
    with pytest.raises(MismatchError, match="label_file"):
        trained(rollouts, tiny_folder, tmp_path / "pvm", label_file=str(tmp_path))


def test_labels_that_do_not_belong_are_refused(tmp_path: Path) -> None:
    data = toy.separable(3)
    graded = LabelFile.read(write(tmp_path / "graded.jsonl", data, outcome="score"))
    with pytest.raises(
        MismatchError, match=r"outcome: got 'success', but the labels at .* are made of 'score'"
    ):
        labelled_trajectories(data, graded, "success")
    others = LabelFile.read(write(tmp_path / "others.jsonl", toy.separable(3, seed=1)))
    with pytest.raises(MismatchError, match="its actions differ"):
        labelled_trajectories(data, others, "success")
    foreign = LabelFile.read(write(tmp_path / "foreign.jsonl", toy.separable(3, prefix="x")))
    with pytest.raises(DataError, match="labels for none of the 12 usable trajectories"):
        labelled_trajectories(data, foreign, "success")
    some = LabelFile.read(write(tmp_path / "some.jsonl", data[:5]))
    assert labelled_trajectories(data, some, "success") == data[:5]
    with pytest.raises(DataError, match="no labels for sample 1 of task 't1'"):
        StoredLabels.from_file(some, data[:4], data[5:], "action")
