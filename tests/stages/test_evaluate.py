"""``rlprm evaluate`` from end to end on the corridor, and what it refuses before it begins."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlprm.data.store import TrajectoryStore
from rlprm.errors import ArtifactError, ConfigError, MismatchError
from rlprm.evaluation.bon import AggregationChoice, choose_aggregation
from rlprm.evaluation.pool import Pool
from rlprm.models.manifest import Manifest
from rlprm.prm.config import PRMConfig
from rlprm.runtime.config import parse
from rlprm.scorers.checkpoint import CheckpointScorer
from rlprm.search.base import score_all
from rlprm.search.best_of_n import expected
from rlprm.stages import evaluate
from rlprm.stages import train_prm as prm
from rlprm.stages.settings import CollectConfig, EvaluateConfig
from tests.toys.pipeline import Pipeline, summary_of

RECORD = {
    "strategy", "scorer", "aggregation", "n", "m", "end", "success_rate", "ci_low", "ci_high",
    "policy_tokens", "sampled_tokens", "prm_tokens", "env_steps",
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished evaluation."""
    folder = tmp_path_factory.mktemp("evaluation") / "results"
    evaluate.run(parse(EvaluateConfig, [*pipeline.evaluation, "--output_dir", str(folder)]))
    return folder


def test_the_summary_has_every_field(finished: Path) -> None:
    summary = summary_of(finished)
    assert set(summary["policy"]) == {"greedy", "sample_mean"}
    assert all(0 <= rate <= 1 for rate in summary["policy"].values())
    assert all(set(record) >= RECORD for record in summary["evaluation"])
    rows = {(r["strategy"], r["scorer"], r["n"], r["m"]): r for r in summary["evaluation"]}
    models = ("agentprm", "orm", "agentprm_x_policy", "orm_x_policy")
    scorers = (*models, "policy_confidence", "shortest", "random", "declared")
    assert set(rows) == {
        ("greedy", None, 1, 1),
        ("sample_mean", None, 1, 1),
        *(("oracle", None, n, 1) for n in (1, 2, 4)),
        *(("best_of_n", scorer, n, 1) for n in (1, 2, 4) for scorer in scorers),
        *(("beam", scorer, 2, 2) for scorer in models),
    }
    assert {r["end"] for r in rows.values()} == {"declared"}
    assert all(r["ci_low"] <= r["success_rate"] <= r["ci_high"] for r in rows.values())
    assert all(r["policy_tokens"] > 0 and r["env_steps"] > 0 for r in rows.values())
    for (strategy, scorer, _, _), record in rows.items():
        uses_model = strategy in ("best_of_n", "beam") and scorer in models
        assert (record["prm_tokens"] > 0) == uses_model
    assert set(summary["oracle"]) == {"1", "2", "4"}
    assert set(summary["gap_closed"]) == set(scorers)
    parts = {"pool", "dev pool", "scoring agentprm", "greedy", "beam 2x2 agentprm"}
    assert parts <= set(summary["seconds"])
    assert parts <= set(summary["peak_memory"])
    json.loads((finished / "summary.json").read_text(), parse_constant=pytest.fail)  # no NaN, no Infinity


def test_best_of_n_is_what_the_stored_pool_says(finished: Path, pipeline: Pipeline) -> None:
    summary = summary_of(finished)
    pool = Pool.from_trajectories(TrajectoryStore.open(finished / "pool").read())
    assert len(pool.task_ids) == 6
    scorer = CheckpointScorer.load("agentprm", pipeline.agentprm)
    rule = summary["aggregation"]["agentprm"]["name"]
    by_task = [expected(row, score_all(scorer, row), rule, [1, 2, 4]) for row in pool.trajectories]
    for n in (1, 2, 4):
        (record,) = (
            r
            for r in summary["evaluation"]
            if (r["strategy"], r["scorer"], r["n"]) == ("best_of_n", "agentprm", n)
        )
        assert record["aggregation"] == rule
        assert record["success_rate"] == pytest.approx(sum(task[n] for task in by_task) / 6)
    successes = [t.outcome.success for t in pool.flat]
    assert summary["policy"]["sample_mean"] == pytest.approx(sum(successes) / 24)
    assert 0 < sum(successes) < 24


def test_aggregations_are_chosen_on_dev_tasks_alone(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools: list[Pool] = []

    def spy(pool: Pool, scorer: str, k: int) -> AggregationChoice:
        pools.append(pool)
        return replace(choose_aggregation(pool, scorer, k), name="min")

    monkeypatch.setattr(evaluate, "choose_aggregation", spy)
    config = parse(EvaluateConfig, [*pipeline.evaluation, "--output_dir", str(tmp_path)])
    config.beams, config.beam_aggregation = ["2x2"], "chosen"
    summary = evaluate.run(config)
    assert [len(pool.task_ids) for pool in pools] == [5] * 5
    assert {t.task.split for pool in pools for t in pool.flat} == {"dev"}
    without = (None, "shortest", "random", "declared")
    used = {r["aggregation"] for r in summary["evaluation"] if r["scorer"] not in without}
    assert used == {"min"}


def test_tables_and_plots_are_there(finished: Path) -> None:
    table = (finished / "table.txt").read_text()
    assert "tests.toys.corridor" in table
    assert "agentprm" in table
    assert max(map(len, table.splitlines())) <= 80
    images = list(finished.rglob("*.png"))
    assert len(images) >= 3
    for image in images:
        assert image.read_bytes().startswith(b"\x89PNG")
        assert image.stat().st_size > 5000


def test_a_second_run_is_reused_and_another_setting_refused(
    finished: Path, pipeline: Pipeline, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    arguments = [*pipeline.evaluation, "--output_dir", str(finished)]
    with caplog.at_level(logging.INFO):
        evaluate.run(parse(EvaluateConfig, arguments))
    assert "reusing it" in caplog.text
    assert "agentprm" in capsys.readouterr().out
    with pytest.raises(MismatchError, match="num_tasks: 6 there, 7 now"):
        evaluate.run(parse(EvaluateConfig, [*arguments, "--num_tasks", "7"]))
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()} == before


def test_the_same_seed_gives_the_same_numbers_in_another_folder(
    finished: Path, pipeline: Pipeline, tmp_path: Path
) -> None:
    again = evaluate.run(parse(EvaluateConfig, [*pipeline.evaluation, "--output_dir", str(tmp_path)]))
    assert again["evaluation"] == summary_of(finished)["evaluation"]


@pytest.mark.parametrize(("name", "value"), [("end", "on_success"), ("prompt", "short")])
def test_a_prm_of_another_setting_is_refused(
    pipeline: Pipeline, tmp_path: Path, name: str, value: str
) -> None:
    shutil.copytree(pipeline.agentprm, tmp_path / "prm")
    replace(Manifest.load(pipeline.agentprm), **{name: value}).save(tmp_path / "prm")
    arguments = [*pipeline.evaluation, "--scorers.agentprm", str(tmp_path / "prm")]
    config = parse(EvaluateConfig, [*arguments, "--output_dir", str(tmp_path / "results")])
    with pytest.raises(MismatchError, match=f"{name}: trained with '{value}', used with"):
        evaluate.run(config)
    assert not (tmp_path / "results").exists()


def test_a_prm_of_another_environment_is_a_transfer(
    pipeline: Pipeline, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(pipeline.agentprm, tmp_path / "prm")
    replace(Manifest.load(pipeline.agentprm), environment="babyai").save(tmp_path / "prm")
    evaluate.load_scorer("prm", str(tmp_path / "prm"), parse(EvaluateConfig, pipeline.evaluation))
    assert "environment 'babyai' there, 'tests.toys.corridor' here (this is a transfer)" in caplog.text


def test_a_prm_of_another_backbone_scores_pool_and_beam(
    pipeline: Pipeline, foreign_folder: Path, tmp_path: Path
) -> None:
    arguments = ["--model", str(foreign_folder), "--trajectories", pipeline.rollouts, "--bf16", "false"]
    arguments += [
        "--held_out_fraction",
        "0.25",
        "--num_train_epochs",
        "1",
        "--cold_start_epochs",
        "0",
        "--disable_tqdm",
        "true",
    ]
    prm.run(parse(PRMConfig, [*arguments, "--output_dir", str(tmp_path / "foreign")]))
    arguments = [*pipeline.evaluation, "--scorers.foreign", str(tmp_path / "foreign")]
    evaluate.run(parse(EvaluateConfig, [*arguments, "--output_dir", str(tmp_path / "results")]))
    rows = {(r["strategy"], r["scorer"], r["n"]): r for r in summary_of(tmp_path / "results")["evaluation"]}
    # Its words are shorter: it spends more tokens on the same pool than the model beside it.
    spent = [rows["best_of_n", scorer, 4]["prm_tokens"] for scorer in ("agentprm", "foreign")]
    assert 2 * spent[0] < spent[1]
    assert rows["beam", "foreign", 2]["prm_tokens"] > 0
    pool = Pool.from_trajectories(TrajectoryStore.open(tmp_path / "results/pool").read())
    template = Manifest.load(tmp_path / "foreign").template
    assert {t.template for t in pool.flat} == {Manifest.load(pipeline.agentprm).template} != {template}


def test_a_missing_scorer_is_named_before_anything_is_collected(pipeline: Pipeline, tmp_path: Path) -> None:
    arguments = [*pipeline.evaluation, "--scorers.orm", str(tmp_path / "nowhere")]
    config = parse(EvaluateConfig, [*arguments, "--output_dir", str(tmp_path / "results")])
    with pytest.raises(ArtifactError, match="nowhere"):
        evaluate.run(config)
    assert not (tmp_path / "results").exists()


SETTINGS: dict[str, Any] = {"model": "policy", "scorers": {"a": "prm"}}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scorers": {}}, "scorers: nothing given"),
        ({"scorers": {"a": None}}, "scorers.a: got None"),
        ({"scorers": {"random": "prm"}}, "scorers.random: that name belongs to the baseline"),
        ({"main_scorer": "b"}, "main_scorer: got 'b', allowed: a"),
        ({"split": "train"}, "split: got 'train', allowed: test, dev"),
        ({"budgets": []}, "budgets"),
        ({"budgets": [0, 16]}, "budgets"),
        ({"budgets": [16, 16]}, "budgets"),
        ({"chosen_at": 3}, "chosen_at: got 3"),
        ({"beams": ["4by4"]}, "beams"),
        ({"beams": ["0x4"]}, "beams"),
        (
            {"beam_aggregation": "newest"},
            "beam_aggregation: got 'newest', allowed: chosen, last, min, mean, product",
        ),
        ({"num_tasks": 0}, "num_tasks: got 0"),
        ({"num_dev_tasks": 0}, "num_dev_tasks: got 0"),
        ({"temperature": 0.0}, "temperature: got 0"),
        ({"split": "dev"}, "dev tasks reported must not be those the aggregation is chosen on"),
        ({"split": "dev", "first_task": 63}, "dev tasks reported must not be"),
        ({"split": "dev", "first_task": 0, "num_tasks": 11, "first_dev_task": 10}, "dev tasks reported"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EvaluateConfig(**{**SETTINGS, **settings})


def test_dev_tasks_behind_the_chosen_ones_may_be_reported() -> None:
    assert EvaluateConfig(**SETTINGS, split="dev", first_task=64).main_scorer == "a"
    assert EvaluateConfig(**SETTINGS, beams=["4x4", "2x8"]).beam_sizes() == [(4, 4), (2, 8)]
    assert CollectConfig(model="policy", temperature=0.0).temperature == 0.0
