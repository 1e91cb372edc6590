"""``rlprm label``: the labels on disk are the estimator's, worked out here from definition."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlprm.data.store import TrajectoryStore
from rlprm.errors import ConfigError, DataError, MismatchError
from rlprm.scorers.checkpoint import CheckpointScorer
from rlprm.stages import label
from rlprm.stages.settings import LabelConfig
from rlprm.types import Trajectory
from tests.toys.pipeline import Pipeline


def rows(config: LabelConfig) -> list[dict[str, Any]]:
    label.run(config)
    return [json.loads(line) for line in Path(config.output).read_text().splitlines()]


def usable(folder: str) -> list[Trajectory]:
    return [t for t in TrajectoryStore.open(folder).read() if t.steps and t.error is None]


def test_returns_put_the_outcome_at_every_read(pipeline: Pipeline, tmp_path: Path) -> None:
    found = rows(LabelConfig(trajectories=pipeline.rollouts, output=str(tmp_path / "labels.jsonl")))
    expected = usable(pipeline.rollouts)
    assert len(found) == len(expected)
    assert {row["success"] for row in found} == {True, False}
    for row, t in zip(found, expected, strict=True):
        assert (row["task_id"], row["sample"]) == (t.task.id, t.sample)
        assert row["actions"] == [step.action for step in t.steps]
        assert row["promise"] == [float(t.outcome.success)] * (len(t.steps) + 1)
        assert row["weight"] == [1.0] * (len(t.steps) + 1)
        assert row["progress"] == []


def test_an_orm_has_one_target_and_may_be_graded(pipeline: Pipeline, tmp_path: Path) -> None:
    settings = LabelConfig(
        trajectories=pipeline.rollouts,
        label_estimator="outcome",
        outcome="score",
        output=str(tmp_path / "labels.jsonl"),
    )
    for row, t in zip(rows(settings), usable(pipeline.rollouts), strict=True):
        assert row["promise"][-1] == pytest.approx(t.outcome.score)
        assert row["weight"] == [0.0] * len(t.steps) + [1.0]


def test_td_gae_follows_the_values_of_the_model(pipeline: Pipeline, tmp_path: Path) -> None:
    lam = 0.7
    settings = LabelConfig(
        trajectories=pipeline.rollouts,
        label_estimator="td_gae",
        label_estimator_kwargs={"lam": lam},
        model=pipeline.agentprm,
        output=str(tmp_path / "labels.jsonl"),
    )
    trajectories = usable(pipeline.rollouts)
    scores = CheckpointScorer.load("prm", pipeline.agentprm).score(trajectories)
    for row, t, s in zip(rows(settings), trajectories, scores, strict=True):
        values, last = [s.initial, *s.values], len(t.steps)
        values[-1] = float(t.outcome.success)
        deltas = [values[k] - values[k - 1] for k in range(1, last + 1)]
        progress = [sum(lam ** (k - j) * deltas[k] for k in range(j, last)) for j in range(last)]
        promise = [progress[0] + values[0], *(progress[j] + values[j] for j in range(last - 1)), values[-1]]
        assert row["progress"] == pytest.approx(progress, abs=1e-5)
        assert row["promise"] == pytest.approx(promise, abs=1e-5)
        assert row["weight"] == [1.0] * (last + 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label_estimator": "td_gae"}, "td_gae needs values: name a PRM with --model"),
        ({"trajectories": ""}, "trajectories: nothing given"),
        ({"outcome": "reward"}, "outcome: got 'reward'"),
        ({"label_estimator": "gae"}, "unknown label estimator 'gae'"),
        ({"label_estimator_kwargs": {"lam": 1.0}}, "no setting 'lam'"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LabelConfig(**{"trajectories": "t", **settings})


def test_nothing_is_written_where_nothing_can_be_labelled(pipeline: Pipeline, tmp_path: Path) -> None:
    store = TrajectoryStore.open(pipeline.rollouts)
    failed = [replace(t, error="RuntimeError: down") for t in store.read()]
    TrajectoryStore.create(tmp_path / "failed", store.meta).write(0, failed)
    output = tmp_path / "labels.jsonl"
    with pytest.raises(DataError, match="none of the 64 trajectories can be learned from"):
        label.run(LabelConfig(trajectories=str(tmp_path / "failed"), output=str(output)))
    assert not output.exists()


def test_values_of_another_outcome_are_not_mixed_in(pipeline: Pipeline, tmp_path: Path) -> None:
    settings = LabelConfig(
        trajectories=pipeline.rollouts,
        label_estimator="td_gae",
        model=pipeline.agentprm,
        outcome="score",
        output=str(tmp_path / "labels.jsonl"),
    )
    with pytest.raises(MismatchError, match="outcome: trained with 'success', used with 'score'"):
        label.run(settings)
