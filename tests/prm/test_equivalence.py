"""One update is one update, however its batch is split, stopped or repeated."""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rlprm.errors import MismatchError, TrainingError
from rlprm.models.heads import HEADS
from rlprm.models.heads.value_positions import VALUE_READS
from rlprm.prm import trainer as trainer_module
from rlprm.prm.config import PRMConfig
from rlprm.prm.trainer import PRMTrainer, prm_arguments
from rlprm.training import check_world_size, last_checkpoint, stage_record
from tests.prm import toy
from tests.prm.toy import Build
from tests.toys.trajectories import of_words

ROOT = Path(__file__).parents[2]


def skewed(count: int = 24) -> list[toy.Trajectory]:
    """Lengths 1 ... 7 in disorder: micro-batches of one update hold different numbers of steps."""
    return toy.separable(count // 4, seed=5)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("reads", VALUE_READS)
@pytest.mark.parametrize("relabel", ["epoch", "batch"])
def test_accumulated_micro_batches_equal_one_batch(build: Build, relabel: str, reads: str, head: str) -> None:
    data = skewed()
    settings = {"num_train_epochs": 2, "relabel": relabel, "value_reads": reads, "learning_rate": 2e-3}
    settings["head"] = head
    whole = build(data, folder="a", per_device_train_batch_size=8, **settings)
    split = build(data, folder="b", per_device_train_batch_size=2, gradient_accumulation_steps=4, **settings)
    start = toy.weights(whole)
    whole.train()
    split.train()
    assert whole.state.global_step == split.state.global_step == 6
    assert (toy.weights(whole) - start).abs().max() > 1e-3
    torch.testing.assert_close(toy.weights(split), toy.weights(whole), atol=1e-6, rtol=0)


def test_an_update_is_cut_where_padding_costs_more_than_a_call_and_learns_the_same(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = [
        of_words(["right", *["wait"] * (60 if number == 5 else number)], number % 2 == 0, task=f"t{number}")
        for number in range(8)
    ]
    longest = max(len(t.token_ids) for t in data)
    loss, runs, padded = PRMTrainer.compute_loss, [], []
    for call in (64.0, math.inf):
        shapes: list[tuple[int, int]] = []

        def watched(self: PRMTrainer, model: Any, inputs: Any, *, seen: Any = shapes, **options: Any) -> Any:
            seen.append(tuple(inputs["token_ids"].shape))
            return loss(self, model, inputs, **options)

        monkeypatch.setattr(trainer_module, "call_tokens", lambda _, call=call: call)
        monkeypatch.setattr(PRMTrainer, "compute_loss", watched)
        trainer = build(data, folder=str(call), per_device_train_batch_size=4, gradient_accumulation_steps=2)
        trainer.train()
        assert trainer.state.global_step == 1
        assert sum(rows for rows, _ in shapes) == 8
        assert all(rows * width <= 4 * longest for rows, width in shapes)
        runs.append(trainer)
        padded.append(sum(rows * width for rows, width in shapes))
    tokens = sum(len(t.token_ids) for t in data)
    assert tokens <= padded[0] < padded[1] - 64
    torch.testing.assert_close(toy.weights(runs[0]), toy.weights(runs[1]), atol=1e-6, rtol=0)


def test_per_micro_batch_means_would_not_pass_the_test_above(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = skewed()
    whole = build(data, folder="a", learning_rate=2e-3)
    split = build(
        data, folder="b", learning_rate=2e-3, per_device_train_batch_size=2, gradient_accumulation_steps=4
    )
    whole.train()
    loss = PRMTrainer.compute_loss

    def local_mean(self: PRMTrainer, model: object, inputs: dict[str, torch.Tensor], **_: object) -> object:
        return loss(self, model, inputs) / 4  # type: ignore[arg-type]

    monkeypatch.setattr(PRMTrainer, "compute_loss", local_mean)
    split.train()
    assert (toy.weights(split) - toy.weights(whole)).abs().max() > 1e-4


def test_a_short_last_update_counts_its_own_steps(build: Build) -> None:
    data = skewed()[:11]  # an update of 8, then one of 3 in micro-batches of 2 and 1
    whole = build(data, folder="a", per_device_train_batch_size=8)
    split = build(data, folder="b", per_device_train_batch_size=2, gradient_accumulation_steps=4)
    whole.train()
    split.train()
    assert whole.state.global_step == split.state.global_step == 2
    torch.testing.assert_close(toy.weights(split), toy.weights(whole), atol=1e-6, rtol=0)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(build: Build) -> None:
    data = skewed()
    runs = [build(data, folder=str(i), optim="adamw_torch", seed=seed) for i, seed in enumerate((1, 1, 2))]
    for run in runs:
        run.train()
    first, again, other = map(toy.weights, runs)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("labels", ["estimated", "stored"])
@pytest.mark.parametrize(("strategy", "steps"), [("epoch", 3), ("steps", 4)])
def test_a_killed_run_goes_on_to_the_same_weights(
    build: Build, strategy: str, steps: int, labels: str
) -> None:
    data = skewed()  # 3 updates an epoch: step 4 is in the middle of the second one
    settings = {
        "stored": toy.stored_labels(data) if labels == "stored" else None,
        "num_train_epochs": 3,
        "save_strategy": strategy,
        "save_steps": steps,
        "optim": "adamw_torch",
        "learning_rate": 1e-3,
        "lr_scheduler_type": "cosine",
    }
    whole = build(data, folder="a", **settings)
    whole.train()
    killed = build(data, folder="b", **settings)
    killed.add_callback(_KillAfter(steps))
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    resumed = build(data, folder="b", **settings)
    checkpoint = last_checkpoint(resumed.args.output_dir, {})
    assert checkpoint is not None
    assert checkpoint.endswith(f"-{steps}")
    resumed.train(resume_from_checkpoint=checkpoint)
    assert resumed.state.global_step == 9
    torch.testing.assert_close(toy.weights(resumed), toy.weights(whole), atol=1e-6, rtol=0)


def test_a_run_killed_after_its_last_checkpoint_measures_what_it_would_have(build: Build) -> None:
    data = skewed()
    settings = {"num_train_epochs": 2, "save_strategy": "epoch", "learning_rate": 1e-3}
    whole = build(data[:16], data[16:], folder="a", **settings)
    whole.train()
    resumed = build(data[:16], data[16:], folder="b", **settings)
    resumed.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-4")
    assert torch.equal(toy.weights(resumed), toy.weights(whole))
    assert resumed.label_table.epoch == whole.label_table.epoch == 2
    assert resumed.evaluate() == whole.evaluate()


def test_no_run_goes_on_from_a_checkpoint_of_other_settings(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-3").mkdir()
    assert last_checkpoint(str(tmp_path), {"beta": 1.0}) == str(tmp_path / "checkpoint-3")
    assert last_checkpoint(str(tmp_path), {"beta": 1.0}) is not None
    with pytest.raises(MismatchError, match=r"beta: 1\.0 there, 0\.5 now"):
        last_checkpoint(str(tmp_path), {"beta": 0.5})


def test_processes_that_do_not_know_of_each_other_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = prm_arguments(toy.config(tmp_path))
    check_world_size(config)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="2 processes were launched, but the trainer sees 1"):
        check_world_size(config)


@pytest.mark.trap("silent DataParallel")
def test_trap_one_process_on_several_gpus_does_not_spread_its_batches(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = prm_arguments(toy.config(tmp_path, per_device_train_batch_size=4))
    assert config.n_gpu <= 1
    config._n_gpu = 8  # as transformers counts them where there is no launch
    with caplog.at_level(logging.WARNING):
        check_world_size(config)
    assert (config.n_gpu, config.train_batch_size) == (1, 4)
    assert "one of 8 GPUs is used; accelerate launch --num_processes 8" in caplog.text


def record_of(config: PRMConfig) -> dict[str, Any]:
    return stage_record(config, prm_arguments(config))


def test_a_record_names_what_is_seldom_set_where_it_is_set(tmp_path: Path) -> None:
    usual = record_of(toy.config(tmp_path))
    assert "adam_beta2" not in usual
    changed = record_of(toy.config(tmp_path, adam_beta2=0.5, lr_scheduler_kwargs={"num_cycles": 2}))
    assert changed == {**usual, "adam_beta2": 0.5, "lr_scheduler_kwargs": {"num_cycles": 2}}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "kind"),
    [
        (32, "plain"),
        (27, "plain"),
        (27, "stored labels"),
        (27, "likelihood"),
        (27, "adapters"),
        (30, "resumed"),
    ],
)
def test_two_processes_equal_one(
    build: Build, tiny_folder: Path, tmp_path: Path, count: int, kind: str
) -> None:
    data = toy.separable(8, seed=5)[:count]
    stored = toy.stored_labels(data) if kind == "stored labels" else None
    settings = {"num_train_epochs": 2, "per_device_train_batch_size": 8, **toy.PROCESS_KINDS[kind]}
    alone = build(data, folder="a", stored=stored, **settings)
    alone.train()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    # A real launch knows nothing of this process.
    environment = {k: v for k, v in os.environ.items() if k not in ("WORLD_SIZE", "RANK", "LOCAL_RANK")}
    done = subprocess.run(
        [
            *command,
            "--module",
            "tests.prm.two_processes",
            str(tiny_folder),
            str(tmp_path),
            str(count),
            kind,
        ],
        cwd=ROOT,
        env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    # Not the status: now and then a process is aborted by gloo's threads while the interpreter ends.
    assert (tmp_path / "world.json").exists(), done.stderr[-3000:]
    found = load_file(tmp_path / "two.safetensors")
    torch.testing.assert_close(found["weights"], toy.weights(alone), atol=1e-6, rtol=0)
    torch.testing.assert_close(found["values"], alone.predict_logits(data[:5]), atol=1e-5, rtol=0)
    assert json.loads((tmp_path / "world.json").read_text()) == 2


class _KillAfter(trainer_module.TrainerCallback):
    """Stops a run dead after a step, once its checkpoint is written."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: object, state: object, control: object, **_: object) -> None:
        if state.global_step == self.step:  # type: ignore[attr-defined]
            raise KeyboardInterrupt
