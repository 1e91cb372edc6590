"""``probe-actions`` and ``estimate`` from end to end: what they leave behind is what the next stage takes."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest

from rlprm.data.label_files import LabelFile
from rlprm.data.probes import ActionProbe
from rlprm.data.store import TrajectoryStore
from rlprm.errors import ArtifactError, MismatchError
from rlprm.evaluation.discrimination import evaluate_discrimination
from rlprm.models.manifest import Manifest
from rlprm.prm.config import PRMConfig
from rlprm.runtime.config import parse
from rlprm.runtime.record import read_record
from rlprm.scorers.checkpoint import CheckpointScorer
from rlprm.stages import estimate, evaluate, probe_actions
from rlprm.stages import train_prm as prm
from rlprm.stages.estimate import EstimateStore
from rlprm.stages.settings import CollectConfig, EstimateConfig, EvaluateConfig, ProbeActionsConfig
from tests.toys.pipeline import Pipeline


@pytest.fixture(scope="module")
def probe(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished probe."""
    folder = tmp_path_factory.mktemp("probe") / "probe"
    sizes = ["--num_states", "8", "--rollouts", "8", "--output_dir", str(folder)]
    probe_actions.run(parse(ProbeActionsConfig, [*pipeline.acting, *sizes]))
    return folder


@pytest.fixture(scope="module")
def estimates(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of finished estimates."""
    folder = tmp_path_factory.mktemp("estimates") / "estimates"
    sizes = ["--samples_per_task", "2", "--rollouts", "4", "--output_dir", str(folder)]
    estimate.run(parse(EstimateConfig, [*pipeline.acting, *sizes]))
    return folder


def test_a_probe_counts_what_it_did(probe: Path) -> None:
    states = ActionProbe.open(probe).read()
    found = read_record(probe)["results"]
    assert found["states"] == len(states) == 8
    assert found["actions"] == sum(map(len, states))
    assert found["rollouts"] == sum(a.rollouts for actions in states for a in actions)
    assert found["sampled_tokens"] > sum(a.sampled_tokens for actions in states for a in actions)
    row = json.loads((probe / "wave-00000.jsonl").read_text().splitlines()[0])
    named = {
        "state",
        "turn",
        "action",
        "frequency",
        "samples",
        "mc_success",
        "mc_score",
        "rollouts",
        "finished",
    }
    assert named | {"token_ids", "messages", "task_id"} <= row.keys()


def test_an_evaluation_says_how_well_each_checkpoint_tells_actions_apart(
    probe: Path, pipeline: Pipeline, tmp_path: Path
) -> None:
    arguments = [*pipeline.evaluation, "--action_probe", str(probe), "--output_dir", str(tmp_path / "out")]
    config = parse(EvaluateConfig, arguments)
    config.beams = []
    summary = evaluate.run(config)
    assert set(summary["discrimination"]) == {"agentprm", "orm"}
    expected = evaluate_discrimination(probe, CheckpointScorer.load("orm", pipeline.orm))
    for name, number in expected.as_json().items():  # scored in other batches
        found = summary["discrimination"]["orm"][name]
        assert found == (number if isinstance(number, str) else pytest.approx(number, abs=1e-5)), name
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["discrimination"]["orm"]["states"] == 8


def test_a_probe_that_is_missing_is_noticed_before_anything_is_collected(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    arguments = [*pipeline.evaluation, "--action_probe", str(tmp_path / "nowhere")]
    config = parse(EvaluateConfig, [*arguments, "--output_dir", str(tmp_path / "out")])
    with pytest.raises(ArtifactError, match="no probed actions at"):
        evaluate.run(config)
    assert not (tmp_path / "out").exists()


def test_a_probe_of_other_episodes_is_refused(probe: Path, pipeline: Pipeline, tmp_path: Path) -> None:
    other = tmp_path / "probe"
    shutil.copytree(probe, other)
    meta = json.loads((other / "meta.json").read_text())
    (other / "meta.json").write_text(json.dumps({**meta, "end": "on_success"}))
    arguments = [*pipeline.evaluation, "--action_probe", str(other), "--output_dir", str(tmp_path / "out")]
    with pytest.raises(MismatchError, match=r"another setting \(end: 'on_success' there, 'declared' now\)"):
        evaluate.run(parse(EvaluateConfig, arguments))


def test_labels_of_a_policy_at_another_temperature_are_warned_of(
    pipeline: Pipeline, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sizes = ["--num_tasks", "1", "--samples_per_task", "1", "--rollouts", "1"]
    cooler = ["--temperature", "0.5", "--output_dir", str(tmp_path / "out")]
    with caplog.at_level(logging.WARNING):
        estimate.run(parse(EstimateConfig, [*pipeline.acting, *sizes, *cooler]))
    assert "the rollouts are at temperature 0.5, the trajectories at 1.5" in caplog.text


@pytest.mark.parametrize(("made", "store"), [("probe", ActionProbe), ("estimates", EstimateStore)])
def test_rows_under_the_names_of_0_1_0_are_read(
    made: str, store: type[ActionProbe] | type[EstimateStore], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = request.getfixturevalue(made)
    for file in (folder / "meta.json", *folder.glob("wave-*.jsonl")):
        (tmp_path / file.name).write_text(file.read_text().replace('"sampled_tokens"', '"policy_tokens"'))
    assert '"policy_tokens"' in (tmp_path / "wave-00000.jsonl").read_text()
    assert store.open(tmp_path).read() == store.open(folder).read()


def test_estimates_become_labels_and_labels_a_step_value_model(
    estimates: Path, pipeline: Pipeline, tmp_path: Path
) -> None:
    soft, hard = LabelFile.read(estimates), LabelFile.read(estimates / "labels_hard.jsonl")
    assert soft.meta["label_estimator_kwargs"] == {"rollouts": 4, "hard": False, "temperature": 1.5}
    assert hard.meta["label_estimator_kwargs"] == {"rollouts": 4, "hard": True, "temperature": 1.5}
    assert soft.meta["costs"]["sampled_tokens"] == read_record(estimates)["results"]["sampled_tokens"] > 0
    assert soft.rows.keys() == hard.rows.keys()
    for key, (_, labels) in soft.rows.items():
        assert set(labels.promise[:-1]) <= {0.0, 0.25, 0.5, 0.75, 1.0}
        assert hard.rows[key][1].promise == tuple(float(target > 0) for target in labels.promise)
    usable = [t for t in TrajectoryStore.open(pipeline.rollouts).read() if t.steps and t.error is None]
    assert soft.rows.keys() == {(t.task.id, t.sample) for t in usable if t.sample < 2}
    prm.run(
        parse(
            PRMConfig,
            ["--disable_tqdm", "true", "--bf16", "false", "--model", pipeline.policy, "--trajectories",
             pipeline.rollouts, "--label_file", str(estimates), "--num_train_epochs", "1",
             "--held_out_fraction", "0.25", "--output_dir", str(tmp_path / "pvm")],
        )
    )  # fmt: skip
    manifest = Manifest.load(tmp_path / "pvm")
    assert (manifest.label_estimator, manifest.beta) == ("monte_carlo", 0.0)
    assert CheckpointScorer.load("pvm", str(tmp_path / "pvm")).score(usable[:2])[0].values


@pytest.mark.parametrize(("stage", "kind"), [(estimate, EstimateConfig), (probe_actions, ProbeActionsConfig)])
def test_states_of_another_setting_are_refused(
    stage: object, kind: type[CollectConfig], pipeline: Pipeline, tmp_path: Path
) -> None:
    config = parse(kind, [*pipeline.acting, "--end", "on_success", "--output_dir", str(tmp_path / "out")])
    with pytest.raises(MismatchError, match=r"another setting \(end: 'declared' there, 'on_success' now\)"):
        stage.run(config)  # type: ignore[attr-defined]
    assert not (tmp_path / "out").exists()


def test_finished_results_are_reused(
    estimates: Path,
    probe: Path,
    pipeline: Pipeline,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(EstimateConfig, "load_policy", lambda _: pytest.fail("loaded the policy again"))
    monkeypatch.setattr(ProbeActionsConfig, "load_policy", lambda _: pytest.fail("loaded the policy again"))
    sizes = ["--samples_per_task", "2", "--rollouts", "4", "--output_dir", str(estimates)]
    with caplog.at_level(logging.INFO):
        estimate.run(parse(EstimateConfig, [*pipeline.acting, *sizes]))
        probe_actions.run(
            parse(
                ProbeActionsConfig,
                [*pipeline.acting, "--num_states", "8", "--rollouts", "8", "--output_dir", str(probe)],
            )
        )
    assert caplog.text.count("reusing") == 2
    with pytest.raises(MismatchError, match="rollouts: 4 there, 5 now"):
        estimate.run(parse(EstimateConfig, [*pipeline.acting, *sizes, "--rollouts", "5"]))
