"""The clone of the successes among a PRM's own trajectories: its tokens, its tasks, its optimiser steps."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from rlprm.data.failures import with_outcome
from rlprm.data.store import TrajectoryStore
from rlprm.errors import ConfigError, DataError, MismatchError
from rlprm.models.loading import load_causal_lm, revision_of
from rlprm.prm.selection import split_by_task
from rlprm.runtime.config import parse
from rlprm.runtime.record import read_record
from rlprm.scorers.model_confidence import build
from rlprm.stages import sft
from rlprm.stages.settings import SFTStageConfig
from rlprm.stages.sft import trajectories_to_dataset
from tests.toys.pipeline import EPISODES, Pipeline
from tests.toys.trajectories import trajectory


def config(pipeline: Pipeline, output: Path, *changes: str) -> SFTStageConfig:
    """Settings of a clone, trained as the pipeline's PRM is."""
    return parse(
        SFTStageConfig,
        [*EPISODES, "--model", pipeline.policy, "--trajectories", pipeline.rollouts, "--num_train_epochs",
         "2", "--learning_rate", "1e-3", "--held_out_fraction", "0.25", "--epochs_of", "given",
         "--max_length", "512", "--disable_tqdm", "true", "--bf16", "false", "--output_dir", str(output),
         *changes],
    )  # fmt: skip


def test_the_sampled_tokens_are_learned_and_a_forced_closing_token_is_not() -> None:
    made = [trajectory("..ac.aaf"), trajectory(".aac")]
    rows = trajectories_to_dataset(made)
    assert rows["input_ids"] == [[1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4]]
    assert rows["labels"] == [[-100, -100, 3, 4, -100, 6, 7, -100], [-100, 2, 3, 4]]
    everything = trajectories_to_dataset(made, learn_observations=1.0)
    assert everything["labels"] == everything["input_ids"]


def test_a_clone_learns_the_prms_successes_for_as_many_steps(pipeline: Pipeline, tmp_path: Path) -> None:
    sft.run(config(pipeline, tmp_path / "clone"))
    clone, prm = (read_record(folder)["results"] for folder in (tmp_path / "clone", Path(pipeline.agentprm)))
    train, _ = split_by_task(with_outcome(TrajectoryStore.open(pipeline.rollouts).read()), 0.25, 0)
    assert clone["demonstrations"] == sum(t.outcome.success for t in train) < prm["trajectories"]
    assert len(train) == prm["trajectories"]
    assert clone["steps"] == prm["steps"] == 2 * -(-len(train) // 8)
    assert clone["expert_failures"] == clone["too_long"] == 0


def test_a_clone_gives_the_successes_a_higher_likelihood(pipeline: Pipeline, tmp_path: Path) -> None:
    sft.run(config(pipeline, tmp_path / "clone"))
    stored = TrajectoryStore.open(pipeline.rollouts).read()
    means = []
    for folder in (Path(pipeline.policy), tmp_path / "clone"):
        scores = build("clone", model=str(folder)).score([t for t in stored if t.outcome.success])
        means.append(sum(math.log(value) for s in scores for value in s.values) / len(scores))
    assert means[1] > means[0] + 0.2
    assert load_causal_lm(str(tmp_path / "clone")).config.use_cache
    assert revision_of(str(tmp_path / "clone")) != revision_of(pipeline.policy)


def test_epochs_of_what_is_learned_are_fewer_steps_and_failures_may_be_learned_too(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    sft.run(config(pipeline, tmp_path / "learned", "--epochs_of", "learned"))
    learned = read_record(tmp_path / "learned")["results"]
    assert learned["steps"] == 2 * -(-learned["demonstrations"] // 8)
    sft.run(config(pipeline, tmp_path / "all", "--only_successes", "false", "--epochs_of", "learned"))
    everything = read_record(tmp_path / "all")["results"]
    assert everything["demonstrations"] == read_record(Path(pipeline.agentprm))["results"]["trajectories"]
    assert everything["demonstrations"] > learned["demonstrations"]
    assert everything["steps"] == 2 * -(-everything["demonstrations"] // 8)


def test_a_finished_clone_is_reused_and_other_settings_are_refused(
    pipeline: Pipeline, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sft.run(config(pipeline, tmp_path / "clone"))
    with caplog.at_level("INFO"):
        sft.run(config(pipeline, tmp_path / "clone"))
    assert "reusing it" in caplog.text
    with pytest.raises(MismatchError, match="only_successes: True there, False now"):
        sft.run(config(pipeline, tmp_path / "clone", "--only_successes", "false"))


def test_what_cannot_be_cloned_is_one_line(pipeline: Pipeline, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="trajectories: got a folder beside demonstrations, allowed: one"):
        config(pipeline, tmp_path, "--demonstrations", "there.json")
    with pytest.raises(ConfigError, match="model: got tiny, allowed with trajectories: a folder or hub id"):
        config(pipeline, tmp_path, "--model", "tiny")
    with pytest.raises(MismatchError, match=r"of the environment 'tests\.toys\.corridor'"):
        sft.run(config(pipeline, tmp_path / "other", "--environment", "babyai", "--env_kwargs", "{}"))
    with pytest.raises(DataError, match="fits into the model's 8 tokens"):
        sft.run(config(pipeline, tmp_path / "long", "--max_length", "8"))


def test_epochs_are_named_without_effect_beside_a_number_of_steps() -> None:
    given = SFTStageConfig(model="policy", trajectories="rollouts", epochs_of="given")
    assert "epochs_of" not in given.unused()
    given = SFTStageConfig(model="policy", trajectories="rollouts", epochs_of="given", max_steps=10)
    assert given.unused()["epochs_of"] == "max_steps above 0"
