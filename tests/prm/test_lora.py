"""A PRM trained through adapters: the same trainer, resumable, and a stock checkpoint in the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModelForTokenClassification, TrainerCallback

from rlprm.data.store import TrajectoryStore
from rlprm.errors import MismatchError
from rlprm.models.loading import load_scalar_model, revision_of
from rlprm.models.lora import FULL_PRECISION, save_trained
from rlprm.models.manifest import Manifest
from rlprm.prm.trainer import PRMTrainer
from rlprm.runtime.record import read_record
from rlprm.scorers.checkpoint import CheckpointScorer
from rlprm.stages import train_prm as stage
from rlprm.training import last_checkpoint
from tests.prm import toy
from tests.prm.toy import META, Build
from tests.toys.trajectories import of_words

ADAM = {"optim": "adamw_torch", "learning_rate": 3e-3, "lr_scheduler_type": "cosine"}


def test_it_really_learns(build: Build) -> None:
    trainer = build(
        toy.separable(30),
        toy.separable(25, seed=9, prefix="t9"),
        head_seed=None,
        lora_r=8,
        num_train_epochs=4,
        **ADAM,
    )
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert before["eval_auc_last"] == 0.5
    assert min(after["eval_auc_first"], after["eval_auc_last"]) > 0.9


def test_what_is_frozen_stays_and_what_is_trained_moves(build: Build) -> None:
    trainer = build(toy.separable(6, seed=5), lora_r=4, head_seed=None, num_train_epochs=2, **ADAM)
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    trainer.train()
    for name, parameter in trainer.model.named_parameters():
        assert torch.equal(parameter, before[name]) == (not parameter.requires_grad), name


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_labels_are_read_through_the_adapters_and_without_their_dropout(build: Build, dropout: float) -> None:
    data = toy.separable(6, seed=5)
    trainer = build(data, lora_r=4, lora_dropout=dropout, num_train_epochs=2, **ADAM)
    untrained = trainer.predict_logits(data)
    trainer.train()
    assert isinstance(trainer.model, PeftModel)
    values = trainer.predict_logits(data)
    assert torch.equal(trainer.predict_logits(data), values)
    assert (values - untrained).abs().max() > 1e-3
    trainer.start_epoch(2)
    table = trainer.label_table.rows
    assert table is not None
    outcomes = torch.tensor([float(t.outcome.success) for t in data])
    lengths = torch.tensor([len(t.steps) for t in data])
    torch.testing.assert_close(table.promise, trainer.label_table.make(values, outcomes, lengths).promise)


@pytest.mark.parametrize(("strategy", "steps"), [("epoch", 3), ("steps", 4)])
def test_a_killed_run_goes_on_to_the_same_weights(build: Build, strategy: str, steps: int) -> None:
    data = toy.separable(6, seed=5)  # 3 updates an epoch: step 4 is in the middle of the second one
    settings: dict[str, Any] = {
        "lora_r": 4,
        "lora_dropout": 0.1,
        "num_train_epochs": 3,
        "save_strategy": strategy,
        "save_steps": steps,
        **ADAM,
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
    resumed.train(resume_from_checkpoint=checkpoint)
    assert resumed.state.global_step == 9
    assert (toy.weights(whole) - toy.weights(build(data, folder="c", **settings))).abs().max() > 1e-3
    torch.testing.assert_close(toy.weights(resumed), toy.weights(whole), atol=1e-6, rtol=0)


@pytest.mark.parametrize("rank", [0, 4])
def test_recomputed_activations_give_the_same_updates(build: Build, rank: int) -> None:
    data = toy.separable(6, seed=5)
    runs: list[PRMTrainer] = []
    forwards: list[int] = []
    backwards: list[int] = []
    for recompute in (False, True):
        trainer = build(
            data, folder=str(recompute), lora_r=rank, gradient_checkpointing=recompute,
            num_train_epochs=2, logging_steps=1, **ADAM,
        )  # fmt: skip
        counter = _Count(trainer.model)
        losses_made = MagicMock(wraps=trainer.compute_loss)
        trainer.compute_loss = losses_made  # type: ignore[method-assign]
        trainer.train()
        forwards.append(counter.count)
        backwards.append(losses_made.call_count)
        runs.append(trainer)
    plain, recomputed = runs
    assert backwards[0] == backwards[1] >= plain.state.global_step
    assert forwards[1] == forwards[0] + backwards[1]  # once more in every backward pass
    losses = [[row["loss"] for row in run.state.log_history if "loss" in row] for run in runs]
    assert len(losses[0]) == 6
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    torch.testing.assert_close(toy.weights(recomputed), toy.weights(plain), atol=1e-6, rtol=0)


def test_merged_adapters_read_what_the_adapters_read(build: Build, tiny_folder: Path, tmp_path: Path) -> None:
    data = toy.separable(6, seed=5)
    trainer = build(data, lora_r=4, head_seed=None, num_train_epochs=2, **ADAM)
    trainer.train()
    assert trainer.predict_logits(data).std() > 1e-3
    save_trained(
        trainer, str(tmp_path / "out"), lambda: load_scalar_model(str(tiny_folder), **FULL_PRECISION)
    )
    stock = AutoModelForTokenClassification.from_pretrained(tmp_path / "out").eval()
    assert not isinstance(stock, PeftModel)
    assert type(stock.score) is nn.Linear
    for t, expected in zip(data[:4], trainer.predict_logits(data[:4]), strict=True):
        with torch.no_grad():
            logits = stock(input_ids=torch.tensor([t.token_ids])).logits[0, list(t.value_positions), 0]
        torch.testing.assert_close(logits, expected[: len(logits)], atol=1e-5, rtol=0)
    again = PeftModel.from_pretrained(load_scalar_model(str(tiny_folder)), str(tmp_path / "out/adapter"))
    with torch.no_grad():
        ids = torch.tensor([data[0].token_ids])
        assert torch.allclose(again.eval()(input_ids=ids).logits, stock(input_ids=ids).logits, atol=1e-5)


def test_adapters_of_a_coarse_model_are_merged_into_exact_weights(
    build: Build, tiny_folder: Path, tmp_path: Path
) -> None:
    model = load_scalar_model(str(tiny_folder), dtype="bfloat16")
    args = toy.config(tmp_path / "prm", lora_r=4, bf16=True, **ADAM)
    trainer = PRMTrainer(stage.with_adapters(model, args, seed=0), args, toy.separable(6, seed=5), [])
    trainer.train()
    save_trained(
        trainer, str(tmp_path / "out"), lambda: load_scalar_model(str(tiny_folder), **FULL_PRECISION)
    )
    merged, base = load_scalar_model(str(tmp_path / "out")), load_scalar_model(str(tiny_folder))
    name = "model.layers.0.mlp.up_proj"
    layer = trainer.model.base_model.model.get_submodule(name)
    delta = 2.0 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    assert delta.abs().max() > 1e-4
    found = merged.get_parameter(f"{name}.weight") - base.get_parameter(f"{name}.weight")
    torch.testing.assert_close(found, delta, atol=1e-6, rtol=0)
    assert torch.equal(merged.get_input_embeddings().weight, base.get_input_embeddings().weight)


def test_the_stage_leaves_a_stock_checkpoint_with_its_manifest(tiny_folder: Path, tmp_path: Path) -> None:
    TrajectoryStore.create(tmp_path / "rollouts", META).write(0, toy.separable(8))
    common = {"trajectories": str(tmp_path / "rollouts"), "model": str(tiny_folder), **ADAM}
    settings = toy.config(tmp_path / "prm", lora_r=4, num_train_epochs=2, **common)
    stage.run(settings)
    assert Manifest.load(tmp_path / "prm").base == revision_of(str(tiny_folder))
    stock = AutoModelForTokenClassification.from_pretrained(tmp_path / "prm").eval()
    t = of_words(["right", "left"], True)
    (scores,) = CheckpointScorer.load("prm", str(tmp_path / "prm")).score([t])
    with torch.no_grad():
        raw = stock(input_ids=torch.tensor([t.token_ids])).logits[0, list(t.value_positions), 0]
    assert raw.std() > 0
    assert [scores.initial, *scores.values] == pytest.approx(raw.tolist(), abs=1e-5)
    record = read_record(tmp_path / "prm")
    assert record["results"]["trained_parameters"] < stock.num_parameters() / 4
    assert (record["config"]["lora_r"], record["config"]["lora_target_modules"]) == (4, ["all-linear"])
    stage.run(settings)
    with pytest.raises(MismatchError, match=r"lora_alpha: None there, 5 now"):
        stage.run(toy.config(tmp_path / "prm", lora_r=4, lora_alpha=5, num_train_epochs=2, **common))


class _Count:
    """Counts how often a model's first decoder layer is entered."""

    def __init__(self, model: nn.Module) -> None:
        self.count = 0
        (layer,) = (m for n, m in model.named_modules() if n.endswith("layers.0.self_attn"))
        layer.register_forward_pre_hook(self._add)

    def _add(self, *_: object) -> None:
        self.count += 1


class _KillAfter(TrainerCallback):  # type: ignore[misc]
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: object, state: Any, control: object, **_: object) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt
