"""``rlprm train-rl`` as a user runs it: what it leaves behind, and how it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from rlprm import cli
from rlprm.data.message_counts import COUNTED
from rlprm.data.store import TrajectoryStore
from rlprm.models.manifest import FILE, Manifest
from rlprm.runtime.record import read_record
from tests.toys.pipeline import EPISODES, Pipeline, refused

SMALL = [
    *EPISODES, "--temperature", "1.5", "--max_new_tokens", "8", "--iterations", "2", "--tasks_per_iteration",
    "4", "--samples_per_task", "2", "--num_tasks", "100", "--learning_rate", "1e-3", "--bf16", "false",
    "--eval_every", "0", "--test_tasks", "4", "--test_samples", "1",
]  # fmt: skip


def arguments(pipeline: Pipeline, output: Path, *more: str) -> list[str]:
    named = ["--model", pipeline.policy, "--prm", pipeline.agentprm, "--output_dir", str(output)]
    return ["train-rl", *SMALL, *named, *more]


@pytest.fixture(scope="module")
def trained(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; never to be written to."""
    output = tmp_path_factory.mktemp("trained") / "rl"
    assert cli.main(arguments(pipeline, output)) == 0
    return output


def test_it_leaves_a_policy_and_says_what_it_did(trained: Path, pipeline: Pipeline) -> None:
    AutoModelForCausalLM.from_pretrained(trained)
    summary = json.loads((trained / "summary.json").read_text())
    assert summary["reward"] == "outcome"
    assert summary["advantage"] == "outcome_plus_progress"
    assert summary["iterations"] == 2
    assert {"before", "after", "difference"} <= summary.keys()
    assert len((trained / "metrics.jsonl").read_text().splitlines()) == 2
    config = read_record(trained)["config"]
    assert config["learning_rate"] == 1e-3
    assert config["revisions"].keys() == {"policy", "prm"}


def test_steps_of_the_prms_own_episodes_are_counted(trained: Path, pipeline: Pipeline) -> None:
    owed = sum(len(t.steps) for t in TrajectoryStore.open(pipeline.rollouts).read())
    assert Manifest.load(pipeline.agentprm).env_steps == owed
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [row["rollout/env_steps_total"] - row["rollout/env_steps"] for row in rows] == [owed, owed]
    assert json.loads((trained / "summary.json").read_text())["prm_env_steps"] == owed


def test_a_graded_outcome_is_told_beside_success(
    pipeline: Pipeline, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    graded = ["--prm", "", "--advantage", "turn_gae", "--outcome", "score"]
    measured = ["--eval_every", "5", "--eval_tasks", "3"]
    with caplog.at_level("INFO"):
        assert cli.main(arguments(pipeline, tmp_path, *graded, *measured)) == 0
    for what in ("sample success", "sample score", "greedy success", "greedy score"):
        assert f"{what} on 4 test tasks: " in caplog.text
    summary = json.loads((tmp_path / "summary.json").read_text())
    measures = ("", "_score", "_declared", "_declared_success", "_invalid_actions")
    measures += tuple(f"_{name}" for name in COUNTED)
    named = {f"{how}{measure}" for how in ("sample", "greedy") for measure in measures}
    assert summary["after"].keys() == {*named, "tasks"}
    assert summary["difference"].keys() == named
    assert summary["selected_iteration"] in (0, 2)
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"eval/success", "eval/score", "eval/greedy", "eval/greedy_score"} <= last.keys()
    assert {"eval/declared", "eval/declared_success", "eval/greedy_invalid_actions"} <= last.keys()
    assert {"rollout/declared", "rollout/declared_success", "rollout/invalid_actions"} <= last.keys()
    assert {f"{when}/{name}" for when in ("rollout", "eval") for name in COUNTED} <= last.keys()


def test_the_policy_can_act_in_the_stages_that_follow(trained: Path, tmp_path: Path) -> None:
    collect = ["collect", *EPISODES, "--model", str(trained), "--num_tasks", "2", "--samples_per_task", "2"]
    assert cli.main([*collect, "--output_dir", str(tmp_path / "rollouts")]) == 0


def test_a_prm_with_a_likelihood_head_scores_searches_and_pays(pipeline: Pipeline, tmp_path: Path) -> None:
    folder = str(tmp_path / "prm")
    learn = ["--model", pipeline.policy, "--trajectories", pipeline.rollouts, "--output_dir", folder]
    head = ["--head", "lm", "--value_reads", "state_and_action", "--learning_rate", "1e-3"]
    assert cli.main(["train-prm", *learn, *head, "--bf16", "false", "--disable_tqdm", "true"]) == 0
    searched = ["--scorers.agentprm", folder, "--output_dir", str(tmp_path / "search")]
    assert cli.main(["evaluate", *pipeline.evaluation, *searched, "--beam_aggregation", "min"]) == 0
    rows = json.loads((tmp_path / "search/summary.json").read_text())["evaluation"]
    beams = {r["scorer"]: r for r in rows if r["strategy"] == "beam"}
    assert beams["agentprm"]["aggregation"] == "min"
    assert beams["agentprm"]["prm_tokens"] > 0
    paid = ["--reward", "outcome", "--advantage", "prm_critic", "--advantage_kwargs.lam", "0.5"]
    for number, how in enumerate((paid, [])):
        output = tmp_path / str(number)
        assert cli.main(arguments(pipeline, output, "--prm", folder, *how)) == 0
        lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
        assert all(0 <= line["prm/initial_value"] <= 1.5 for line in lines)
        assert (output / "model.safetensors").exists()


def test_a_finished_run_is_reused(trained: Path, pipeline: Pipeline) -> None:
    written = (trained / "model.safetensors").stat().st_mtime_ns
    assert cli.main(arguments(pipeline, trained)) == 0
    assert (trained / "model.safetensors").stat().st_mtime_ns == written


def test_another_run_is_refused_its_folder(
    trained: Path, pipeline: Pipeline, capfd: pytest.CaptureFixture[str]
) -> None:
    line = refused(capfd, *arguments(pipeline, trained, "--learning_rate", "1e-4"))
    assert "holds a finished run with other settings (learning_rate: 0.001 there, 0.0001 now)" in line


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["--reward", "progres"], "unknown step reward 'progres'; known: "),
        (["--advantage", "gae"], "unknown advantage estimator 'gae'; known: "),
        (["--reward", "progress", "--advantage", "group"], "progress with group is outcome with group"),
        (["--reward", "progress"], "progress with outcome_plus_progress counts the PRM twice"),
        (
            ["--reward", "promise", "--reward_kwargs.scal", "2"],
            "the step reward promise has no setting 'scal'",
        ),
        (
            ["--reward", "promise", "--reward_kwargs.scale", "0"],
            "scale must be a finite number above 0, got 0",
        ),
        (["--advantage_kwargs.lam", "1.5"], "lam must lie in [0, 1]"),
        (["--prm", ""], "prm: nothing given, but reward outcome with estimator outcome_plus_progress needs"),
        (["--prm", "", "--reward", "outcome", "--refresh_every", "2"], "refresh_every: there is no PRM"),
        (
            ["--refresh_kwargs.learning_rat", "1e-3"],
            "'learning_rat' in refresh_kwargs; did you mean 'learning_rate'?",
        ),
        (
            ["--refresh_every", "2", "--refresh_kwargs.cold_start_epochs", "1"],
            "cold_start_epochs: got 1 with num_train_epochs 1",
        ),
        (["--reward", "outcome", "--advantage", "group", "--samples_per_task", "1"], "needs 2 of them"),
        (["--learning_rate", "-1"], "learning_rate: got -1.0, allowed: above 0"),
        (["--learning_rate", "nan"], "learning_rate: got nan, allowed: above 0"),
        (["--temperature", "0"], "temperature: got 0.0, allowed: above 0"),
        (["--kl_coef", "-0.1"], "kl_coef: got -0.1, allowed: 0 or more"),
        (["--iterations", "0"], "iterations: got 0, allowed: 1 or more"),
        (["--first_task", "-1"], "first_task: got -1, allowed: 0 or more"),
        (["--eval_tasks", "0"], "eval_tasks: got 0, allowed: 1 or more"),
        (["--gamma", "1.1"], "gamma: got 1.1, allowed: 0 to 1"),
        (["--clip_low", "-0.2"], "clip_low: got -0.2, allowed: 0 to 1"),
        (["--clip_high", "0"], "clip_high: got 0.0, allowed: above 0"),
        (["--dual_clip", "1"], "dual_clip: got 1.0, allowed: above 1"),
        (["--value_clip", "-1"], "value_clip: got -1.0, allowed: above 0"),
        (["--target_kl", "0"], "target_kl: got 0.0, allowed: above 0"),
        (
            ["--importance_cap", "2", "--old_logprobs", "sampler"],
            "the ratio corrects for the sampler already",
        ),
        (["--lora_r", "4", "--lora_dropout", "0.1"], "the policy must act as it learns"),
        (["--kl_loss", "k3"], "kl_loss: got 'k3', allowed: unbiased, k2"),
        (["--critic", "none"], "critic: got 'none', allowed: separate, shared"),
        (["--select", "first"], "select: got 'first', allowed: best, last"),
        (["--report_to", "mlflow"], "report_to: got 'mlflow', allowed: none, wandb, tensorboard"),
        (["--round_limits.3", "6"], "round_limits: got {'3': 6}"),
        (
            ["--reward", "promise", "--advantage", "turn_gae", "--bootstrap_truncations", "true"],
            "unknown under reward promise",
        ),
        (
            ["--shuffle_tasks", "false", "--num_tasks", "20000", "--iterations", "9999"],
            "has tasks 0 ... 9999",
        ),
        (["--iteration", "3"], "unknown setting 'iteration' in the command line; did you mean 'iterations'?"),
    ],
)
def test_what_cannot_be_is_one_line(
    pipeline: Pipeline,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    settings: list[str],
    message: str,
) -> None:
    assert message in refused(capfd, *arguments(pipeline, tmp_path / "rl", *settings))
    assert not (tmp_path / "rl").exists()


def test_models_that_are_not_there_or_something_else(
    pipeline: Pipeline, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def line(*settings: str) -> str:
        return refused(capfd, *arguments(pipeline, tmp_path / "rl", *settings))

    assert "no weights in" in line("--prm", str(tmp_path))
    assert "no model at './nowhere'" in line("--model", "./nowhere")
    assert "no model at './nowhere'" in line("--critic_model", "./nowhere")
    assert "is not a PRM: no prm_manifest.json" in line("--prm", pipeline.policy)
    assert "holds a model with a scalar head (a PRM), not a policy" in line("--model", pipeline.agentprm)


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({"end": "on_success"}, [], "end: trained with 'on_success', used with 'declared'"),
        ({}, ["--end", "on_success"], "end: trained with 'declared', used with 'on_success'"),
        ({}, ["--outcome", "score"], "outcome: trained with 'success', used with 'score'"),
        ({"action_format": "react"}, [], "action_format: trained with 'react', used with 'action_only'"),
    ],
)
def test_a_prm_of_another_setting_is_refused_before_any_episode_is_run(
    pipeline: Pipeline,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, str],
    settings: list[str],
    message: str,
) -> None:
    prm = tmp_path / "prm"
    shutil.copytree(pipeline.agentprm, prm)
    manifest = json.loads((prm / FILE).read_text())
    (prm / FILE).write_text(json.dumps({**manifest, **changes}))
    monkeypatch.setattr("rlprm.rl.samplers.base.rollout", lambda *_: pytest.fail("an episode was run"))
    capfd.readouterr()
    assert cli.main(arguments(pipeline, tmp_path / "rl", "--prm", str(prm), *settings)) == 2
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.startswith("rlprm: MismatchError: the PRM does not fit this setting")
    assert message in line
    assert not (tmp_path / "rl").exists()


def test_help_explains_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["train-rl", "--help"])
    assert caught.value.code == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "usage: rlprm train-rl" in output
    rewards = "min, outcome, progress, progress_terminal, promise, terminal"
    assert f"Step reward. [{rewards}, or a .py file of your own]" in output
    for name in (
        "--reward",
        "--advantage",
        "--critic_learning_rate_factor",
        "--target_kl",
        "--refresh_every",
    ):
        assert f"{name} " in output
