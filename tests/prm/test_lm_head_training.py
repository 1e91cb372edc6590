"""A PRM with an lm head through the same trainer, stage and scorer as any other."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from rlprm.data.store import TrajectoryStore
from rlprm.errors import ConfigError, MismatchError
from rlprm.models.heads import LM
from rlprm.models.heads.lm_head import HEAD
from rlprm.models.heads.reading import read_sequences
from rlprm.models.heads.value_positions import VALUE_READS, chain_positions
from rlprm.models.loading import load_lm_reward_model, load_scalar_model
from rlprm.models.lora import FULL_PRECISION, save_trained
from rlprm.models.manifest import Manifest
from rlprm.runtime.record import read_record
from rlprm.scorers.checkpoint import CheckpointScorer
from rlprm.stages import train_prm as stage
from rlprm.types import Trajectory
from tests.prm import toy
from tests.prm.toy import META, Build
from tests.toys.trajectories import of_words

ADAM = {"head": LM, "optim": "adamw_torch", "learning_rate": 3e-3}


def prefix(t: Trajectory, steps: int) -> Trajectory:
    """The beginning of an episode that goes on."""
    length = t.steps[steps - 1].end + 1
    cut = {name: getattr(t, name)[:length] for name in ("token_ids", "action_mask", "logprobs")}
    return replace(t, **cut, steps=t.steps[:steps], stop=None)


@pytest.mark.parametrize("value_reads", VALUE_READS)
def test_it_learns_which_action_is_right(build: Build, value_reads: str) -> None:
    held_out = toy.separable(25, seed=9, prefix="t9")
    trainer = build(
        toy.separable(30), held_out, head_seed=None, value_reads=value_reads, num_train_epochs=4, **ADAM
    )
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_loss"] < before["eval_loss"] / 2
    assert min(after["eval_auc_first"], after["eval_auc_last"]) > 0.9
    right, left = (of_words([action], True, task="t90") for action in ("right", "left"))
    values = trainer.predict_logits([right, left])
    assert values[0, 0] == values[1, 0]  # one state
    assert values[0, 1] - values[1, 1] > 0.4


def test_the_stage_leaves_a_scorer_that_reads_what_the_trainer_reads(
    tiny_folder: Path, tmp_path: Path
) -> None:
    TrajectoryStore.create(tmp_path / "rollouts", META).write(0, toy.separable(8))
    common = {
        "trajectories": str(tmp_path / "rollouts"),
        "model": str(tiny_folder),
        "num_train_epochs": 2,
        **ADAM,
    }
    stage.run(toy.config(tmp_path / "prm", lm_scale=0.2, value_reads="state_and_action", **common))
    manifest = Manifest.load(tmp_path / "prm")
    assert (manifest.head, manifest.lm_scale) == (LM, 0.2)
    scorer = CheckpointScorer.load("prm", str(tmp_path / "prm"))
    t = of_words(["right", "left", "wait"], True)
    (scores,) = scorer.score([t])
    model = load_lm_reward_model(str(tmp_path / "prm"), dtype="float32")
    reads = chain_positions(t, "state_and_action", LM)
    (chain,) = read_sequences(model, [t.token_ids], [reads], [[0]])
    assert scores.values == pytest.approx(chain[1::2], abs=1e-5)
    assert scores.states == pytest.approx(chain[0::2], abs=1e-5)
    # A search, round after round, reads only what is new, and the same.
    for steps in (1, 2, 3):
        (grown,) = scorer.score([prefix(t, steps)])
        assert grown.values == pytest.approx(scores.values[:steps], abs=1e-5)
        assert grown.states == pytest.approx(scores.states[:steps], abs=1e-5)
    assert grown.tokens < scores.tokens


def test_its_values_of_states_are_a_critic_to_start_from(tiny_folder: Path, tmp_path: Path) -> None:
    TrajectoryStore.create(tmp_path / "rollouts", META).write(0, toy.separable(8))
    common = {
        "trajectories": str(tmp_path / "rollouts"),
        "model": str(tiny_folder),
        "num_train_epochs": 2,
        **ADAM,
    }
    stage.run(toy.config(tmp_path / "prm", value_reads="state_and_action", **common))
    t = of_words(["right", "left"], True)
    (scores,) = CheckpointScorer.load("prm", str(tmp_path / "prm")).score([t])
    critic = load_scalar_model(str(tmp_path / "prm"), dtype="float32")
    with torch.no_grad():
        found = critic(input_ids=torch.tensor([t.token_ids])).logits[0, [s.start - 1 for s in t.steps], 0]
    assert found.tolist() == pytest.approx(scores.states, abs=1e-5)


def test_adapters_leave_its_head_whole_and_merge(build: Build, tiny_folder: Path, tmp_path: Path) -> None:
    data = toy.separable(6, seed=5)
    trainer = build(data, lora_r=4, head_seed=None, num_train_epochs=2, **ADAM)
    assert isinstance(trainer.model, PeftModel)
    trained = {n for n, p in trainer.model.named_parameters() if p.requires_grad}
    for name in HEAD:
        assert {n.rpartition(".")[2] for n in trained if f".{name}." in n} == {"weight", "bias"}
    assert not any("lora" in n and (".score." in n or ".offset." in n or "lm_head" in n) for n in trained)
    trainer.train()
    expected = trainer.predict_logits(data[:4])
    assert expected.std() > 1e-3
    save_trained(
        trainer,
        str(tmp_path / "out"),
        lambda: load_lm_reward_model(str(tiny_folder), scale=0.1, **FULL_PRECISION),
    )
    merged = load_lm_reward_model(str(tmp_path / "out"), dtype="float32")
    rows = read_sequences(
        merged,
        [t.token_ids for t in data[:4]],
        [chain_positions(t, head=LM) for t in data[:4]],
        [range(4)],
    )
    for row, values in zip(rows, expected, strict=True):
        assert row == pytest.approx(values[: len(row)].tolist(), abs=1e-5)


def test_what_a_scalar_head_does_not_use_is_not_part_of_a_finished_prm(
    tiny_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    TrajectoryStore.create(tmp_path / "rollouts", META).write(0, toy.separable(4))
    common = {"trajectories": str(tmp_path / "rollouts"), "model": str(tiny_folder), "num_train_epochs": 2}
    stage.run(toy.config(tmp_path / "prm", **common))
    assert not {"head", "lm_scale"} & read_record(tmp_path / "prm")["config"].keys()
    with caplog.at_level(logging.INFO):
        stage.run(toy.config(tmp_path / "prm", lm_scale=0.5, **common))
    assert "reusing it" in caplog.text
    with pytest.raises(MismatchError, match="head: None there, 'lm' now"):
        stage.run(toy.config(tmp_path / "prm", head=LM, **common))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"head": "likelyhood"}, "head: got 'likelyhood', allowed: scalar, lm"),
        ({"lm_scale": 0.0}, r"lm_scale: got 0\.0, allowed: above 0"),
        ({"lm_scale": float("nan")}, "lm_scale: got nan, allowed: above 0"),
    ],
)
def test_impossible_settings_are_refused(tmp_path: Path, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        toy.config(tmp_path, **settings)
