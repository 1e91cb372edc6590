"""The stage around the trainer: data that cannot be learned from, what is saved, what is never saved."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForTokenClassification, AutoTokenizer

from rlprm.data.rendering import ChatRenderer
from rlprm.data.rerender import Rerenderer
from rlprm.errors import ConfigError, DataError, MismatchError, TrainingError
from rlprm.models.manifest import Manifest
from rlprm.prm.config import PRMConfig
from rlprm.prm.selection import in_own_tokens, split_by_task, usable_trajectories
from rlprm.prm.trainer import PRMTrainer
from rlprm.runtime.files import write_json
from rlprm.runtime.record import read_record
from rlprm.scorers.checkpoint import CheckpointScorer
from rlprm.stages import train_prm as stage
from rlprm.types import End, StopReason
from tests.data.templates import foreign
from tests.prm import toy
from tests.prm.toy import META, Build, store
from tests.toys.trajectories import of_words


@pytest.fixture(scope="module")
def rollouts(tmp_path_factory: pytest.TempPathFactory) -> str:
    return store(tmp_path_factory.mktemp("rollouts"), toy.separable(12))


def config(trajectories: str, tiny_folder: Path, output: Path, **settings: Any) -> PRMConfig:
    return toy.config(
        output,
        **{
            "trajectories": trajectories,
            "model": str(tiny_folder),
            "optim": "adamw_torch",
            "learning_rate": 1e-3,
            "num_train_epochs": 2,
            "eval_strategy": "epoch",
            **settings,
        },
    )


@pytest.mark.parametrize(
    ("loss", "activation"), [("mse", "identity"), ("bce", "sigmoid"), ("mse", "sigmoid")]
)
def test_it_really_learns(build: Build, loss: str, activation: str) -> None:
    usual = {"optim": "adamw_torch", "lr_scheduler_type": "linear", "max_grad_norm": 1.0}
    trainer = build(
        toy.separable(40),
        toy.separable(25, seed=9, prefix="t9"),
        head_seed=None,
        num_train_epochs=4,
        learning_rate=1e-3,
        loss=loss,
        activation=activation,
        **usual,
    )
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert before["eval_auc_last"] == 0.5  # its head starts at zero: the same value everywhere
    assert min(after["eval_auc_first"], after["eval_auc_last"]) > 0.9
    assert after["eval_brier"] < 0.1 < before["eval_brier"]


def test_tasks_are_never_on_both_sides() -> None:
    trajectories = toy.separable(20, samples=3)
    for seed in range(5):
        train, held_out = split_by_task(trajectories, 0.25, seed)
        left, right = ({t.task.id for t in side} for side in (train, held_out))
        assert not left & right
        assert (len(left), len(right)) == (15, 5)
        assert len(train) + len(held_out) == len(trajectories)
    assert split_by_task(trajectories, 0.25, 1) != split_by_task(trajectories, 0.25, 2)


@pytest.mark.parametrize(("fraction", "kept"), [(0.01, 1), (0.99, 3)])
def test_neither_side_is_ever_empty(fraction: float, kept: int) -> None:
    _, held_out = split_by_task(toy.separable(4), fraction, 0)
    assert len({t.task.id for t in held_out}) == kept


def test_one_task_cannot_be_split() -> None:
    with pytest.raises(DataError, match="at least two tasks, got 1"):
        split_by_task(toy.separable(1), 0.5, 0)


def test_failed_trajectories_are_left_out_and_counted() -> None:
    good = toy.separable(3)
    failed = replace(good[0], stop=StopReason.ERROR, error="RuntimeError: down")
    silent = replace(good[0], steps=())
    unfinished = replace(good[0], stop=None)
    assert usable_trajectories([failed, *good, silent, unfinished], "success") == (good, 3)
    with pytest.raises(DataError, match="none of the 3 trajectories can be learned from"):
        usable_trajectories([failed, silent, unfinished], "success")


def test_data_without_a_difference_is_refused() -> None:
    with pytest.raises(DataError, match=r"have the same success, 1; .* another policy\)"):
        usable_trajectories([of_words(["right"], True), of_words(["left"], True)], "success")
    graded = [of_words(["right"], False, score=0.3), of_words(["left"], False, score=0.7)]
    with pytest.raises(DataError, match=r"have the same success, 0; .* or set outcome to score"):
        usable_trajectories(graded, "success")
    assert usable_trajectories(graded, "score") == (graded, 0)
    even = [of_words(["right"], True, score=0.5), of_words(["left"], False, score=0.5)]
    with pytest.raises(DataError, match=r"all 2 trajectories have the same score, 0\.5"):
        usable_trajectories(even, "score")
    assert usable_trajectories(even, "success") == (even, 0)


def test_intermediate_rewards_are_refused() -> None:
    paid = of_words(["right", "right"], True)
    paid = replace(paid, steps=(replace(paid.steps[0], reward=0.5), paid.steps[1]))
    with pytest.raises(DataError, match="intermediate"):
        usable_trajectories([paid, of_words(["left"], False)], "success")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trajectories": ""}, "trajectories: nothing given"),
        ({"model": ""}, "model: nothing given"),
        ({"loss": "bce"}, "activation: got 'identity', allowed with loss bce: sigmoid"),
        ({"relabel": "step"}, "relabel: got 'step', allowed: epoch, batch"),
        ({"outcome": "reward"}, "outcome: got 'reward'"),
        ({"label_estimator": "td_lambda"}, "unknown label estimator 'td_lambda'"),
        ({"label_estimator_kwargs": {"lambda": 1}}, "no setting 'lambda'; allowed: lam, lam_per, gamma"),
        ({"label_estimator_kwargs": {"gamma": 0.9}}, "gamma = 1"),
        ({"held_out_fraction": 1.0}, "held_out_fraction: got 1.0"),
        ({"beta": -0.1}, "beta: got -0.1"),
        ({"beta": float("nan")}, "beta: got nan"),
        ({"cold_start_epochs": -1}, "cold_start_epochs: got -1"),
        ({"last_step_weight": -2.0}, "last_step_weight: got -2.0"),
    ],
)
def test_impossible_settings_are_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        toy.config(tmp_path, **settings)


def test_a_run_leaves_a_stock_checkpoint_with_its_manifest(
    rollouts: str, tiny_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changed = {"label_estimator_kwargs": {"lam": 0.8}, "beta": 0.5, "last_step_weight": 3.0}
    stage.run(config(rollouts, tiny_folder, tmp_path / "prm", **changed))

    manifest = Manifest.load(tmp_path / "prm")
    assert (manifest.label_estimator, manifest.label_estimator_kwargs, manifest.beta) == (
        "td_gae",
        {"lam": 0.8},
        0.5,
    )
    assert (manifest.end, manifest.environment, manifest.round_limit) == ("declared", META["environment"], 6)
    assert (manifest.policy, manifest.outcome_definition) == ("toy", "toy")
    assert manifest.last_step_weight == 3.0
    stock = AutoModelForTokenClassification.from_pretrained(tmp_path / "prm").eval()
    (t,) = [of_words(["right", "left"], True)]
    (scores,) = CheckpointScorer.load("prm", str(tmp_path / "prm")).score([t])
    with torch.no_grad():
        raw = stock(input_ids=torch.tensor([t.token_ids])).logits[0, list(t.value_positions), 0]
    assert [scores.initial, *scores.values] == pytest.approx(raw.tolist(), abs=1e-5)
    assert AutoTokenizer.from_pretrained(tmp_path / "prm").chat_template

    results = read_record(tmp_path / "prm")["results"]
    assert results["trajectories"] + results["held_out"] == 48
    assert results["unusable"] == 0
    assert {"eval_loss", "eval_auc_last", "eval_brier", "tokens"} <= results.keys()

    written = (tmp_path / "prm/model.safetensors").stat().st_mtime_ns
    with caplog.at_level(logging.INFO):
        stage.run(config(rollouts, tiny_folder, tmp_path / "prm", **changed))
    assert "reusing it" in caplog.text
    assert (tmp_path / "prm/model.safetensors").stat().st_mtime_ns == written
    with pytest.raises(MismatchError, match=r"beta: 0\.5 there, 1\.0 now"):
        stage.run(config(rollouts, tiny_folder, tmp_path / "prm", **{**changed, "beta": 1.0}))


def test_training_and_evaluation_share_no_task(
    rollouts: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[set[str], set[str]]] = []

    class Spy(PRMTrainer):
        def train(self, *args: Any, **kwargs: Any) -> Any:
            sides = (self.train_trajectories, self.held_out)
            train, held_out = ({t.task.id for t in side} for side in sides)
            seen.append((train, held_out))
            return super().train(*args, **kwargs)

    monkeypatch.setattr(stage, "PRMTrainer", Spy)
    stage.run(config(rollouts, tiny_folder, tmp_path, held_out_fraction=0.25))
    ((train, held_out),) = seen
    assert (len(train), len(held_out)) == (9, 3)
    assert not train & held_out


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_cold_start_that_lasts_for_the_whole_run_is_refused(
    rollouts: str, tiny_folder: Path, tmp_path: Path, epochs: int
) -> None:
    settings = config(rollouts, tiny_folder, tmp_path / "prm", num_train_epochs=epochs, cold_start_epochs=2)
    with pytest.raises(ConfigError, match=r"cold_start_epochs: got 2 with num_train_epochs \d, .* returns"):
        stage.run(settings)
    assert not (tmp_path / "prm/stage.json").exists()


def test_labels_without_values_have_no_cold_start(rollouts: str, tiny_folder: Path, tmp_path: Path) -> None:
    kwargs = {"label_estimator": "returns", "beta": 0.0, "cold_start_epochs": 9, "num_train_epochs": 1}
    stage.run(config(rollouts, tiny_folder, tmp_path / "prm", **kwargs))
    manifest = Manifest.load(tmp_path / "prm")
    assert (manifest.label_estimator, manifest.beta) == ("returns", 0.0)


def test_a_run_that_ends_within_the_cold_start_records_that_it_learned_returns(
    rollouts: str, tiny_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stage.run(config(rollouts, tiny_folder, tmp_path / "prm", max_steps=2))
    manifest = Manifest.load(tmp_path / "prm")
    assert (manifest.label_estimator, manifest.label_estimator_kwargs) == ("returns", {})
    assert (manifest.beta, manifest.cold_start_epochs) == (0.0, 0)
    assert "this PRM learned returns only" in caplog.text


def test_a_model_trained_in_another_setting_than_the_trajectories_is_named(
    rollouts: str, tiny_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(tiny_folder, tmp_path / "policy")
    made_with = {**META, "prompt": "short"}
    write_json(tmp_path / "policy/stage.json", {"stage": "sft", "config": made_with, "results": {}})
    stage.run(config(rollouts, tmp_path / "policy", tmp_path / "prm", max_steps=1))
    line = "policy was made in another setting than it is used in: prompt 'short' there, 'none' here"
    assert line in caplog.text
    caplog.clear()
    stage.run(config(rollouts, tiny_folder, tmp_path / "silent", max_steps=1))
    assert "another setting" not in caplog.text


@pytest.mark.parametrize("rate", [1e30, 1e38])
def test_a_run_that_diverges_saves_nothing(
    rollouts: str, tiny_folder: Path, tmp_path: Path, rate: float
) -> None:
    diverging = {"learning_rate": rate, "optim": "sgd", "save_strategy": "epoch", "eval_strategy": "no"}
    with pytest.raises(TrainingError, match="lower learning_rate") as caught:
        stage.run(config(rollouts, tiny_folder, tmp_path / "prm", **diverging))
    assert "\n" not in str(caught.value)
    left = {path.name for path in (tmp_path / "prm").rglob("*")} if (tmp_path / "prm").exists() else set()
    assert not left & {"model.safetensors", "prm_manifest.json", "stage.json"}


def test_divergence_in_the_very_last_update_is_seen(build: Build) -> None:
    trainer = build(toy.separable(2), learning_rate=1e38, logging_steps=1000)
    trainer.train()  # one update: its own loss was still finite
    assert trainer.state.global_step == 1
    with pytest.raises(TrainingError, match="a value is"):
        trainer.evaluate()


def test_a_model_with_another_tokenizer_learns_in_its_own_tokens(
    rollouts: str, foreign_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        stage.run(config(rollouts, foreign_folder, tmp_path / "prm", learning_rate=3e-3, num_train_epochs=3))
    (said,) = [r.message for r in caplog.records if "rendered again" in r.message]
    templates = (toy.separable(1)[0].template, foreign().template_hash)
    assert all(template in said for template in templates)
    assert Manifest.load(tmp_path / "prm").template == foreign().template_hash
    results = read_record(tmp_path / "prm")["results"]
    assert (results["trajectories"] + results["held_out"], results["too_long"]) == (48, 0)
    assert results["eval_auc_last"] > 0.8  # it has learned to read them
    tokens = sum(len(t.token_ids) for t in toy.separable(12))
    assert results["tokens"] > 3 * tokens  # a small vocabulary needs more tokens for the same words
    # Its scores of the policy's own trajectories are those of the trajectories it learned from.
    good, bad = of_words(["right", "left"], True), of_words(["left", "left"], False)
    scorer = CheckpointScorer.load("prm", str(tmp_path / "prm"))
    again = [Rerenderer(foreign()).render(t) for t in (good, bad)]
    scores = scorer.score([good, bad])
    assert scores == scorer.score(again)
    assert scores[0].values[-1] > scores[1].values[-1]


def test_what_is_too_long_for_the_model_is_left_out_and_counted(
    renderer: ChatRenderer, caplog: pytest.LogCaptureFixture
) -> None:
    data = toy.separable(4)
    lengths = sorted(len(t.token_ids) for t in data)
    limit = lengths[len(lengths) // 2]
    expected = [t for t in data if len(t.token_ids) <= limit]
    assert 0 < len(expected) < len(data)
    with caplog.at_level(logging.WARNING):
        found = in_own_tokens(data, renderer, limit)
    assert found == (expected, len(data) - len(expected))
    assert f"{found[1]} of 16 trajectories do not fit into the model's {limit} tokens" in caplog.text
    with pytest.raises(DataError, match="none of the 16 trajectories fits into the model's 3 tokens"):
        in_own_tokens(data, renderer, 3)


def test_two_end_modes_are_not_mixed(tiny_folder: Path, tmp_path: Path) -> None:
    mixed = [replace(t, end=End.ON_SUCCESS if t.sample else End.DECLARED) for t in toy.separable(8)]
    with pytest.raises(MismatchError, match="several end modes"):
        stage.run(config(store(tmp_path / "rollouts", mixed), tiny_folder, tmp_path / "prm"))


def test_no_run_goes_on_from_the_checkpoint_of_another(
    rollouts: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(self: PRMTrainer) -> dict[str, float]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PRMTrainer, "evaluate", die)
        with pytest.raises(KeyboardInterrupt):
            stage.run(config(rollouts, tiny_folder, tmp_path, eval_strategy="no", save_strategy="epoch"))
    other = config(rollouts, tiny_folder, tmp_path, eval_strategy="no", save_strategy="epoch", beta=2.0)
    with pytest.raises(MismatchError, match=r"was made with other settings \(beta"):
        stage.run(other)
