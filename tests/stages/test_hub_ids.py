"""Every stage runs with models of the hub: a cache as a download leaves it, and no network."""

from __future__ import annotations

import json
import logging
import tarfile
from pathlib import Path

import datasets
import pytest

from rlprm import cli, envs
from rlprm.models.hub import download
from rlprm.types import Split
from tests import hub_layout
from tests.stages.test_written_by_0_1_0 import ACTING, ARCHIVE, EPISODES, LEARNING, RL

POLICY, PRM = "org/policy", "org/prm"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hub's cache with a policy and a PRM that 0.1.0 trained."""
    folder = tmp_path_factory.mktemp("hub")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    cache = folder / "cache"
    for name in (POLICY, PRM):
        content = folder / "v0_1_0" / {POLICY: "policy", PRM: "scalar_prm"}[name]
        hub_layout.put(cache, name, content)
    return cache


@pytest.fixture
def offline(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    download._snapshot.cache_clear()
    hub_layout.use_cache(models, monkeypatch)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> None:
    named = {"policy": POLICY, "scalar_prm": PRM}
    assert cli.main([named.get(word, word) for word in words]) == 0


def test_the_whole_chain_from_hub_ids(offline: Path, caplog: pytest.LogCaptureFixture) -> None:
    few = ["--first_task", "1000", "--num_tasks", "8", "--samples_per_task", "4", "--wave_size", "32"]
    collect = ["collect", *ACTING, *few, "--output_dir", "rollouts"]
    run(*collect, "--revision", "main")
    record = json.loads((offline / "rollouts" / "stage.json").read_text())
    assert record["config"]["revision"] == hub_layout.COMMIT[:12]
    assert record["config"]["model"] == f"{POLICY}@main"
    run(
        "sft", *EPISODES, "--model", "policy", "--num_demonstrations", "8", "--max_steps", "1",
        "--bf16", "false", "--disable_tqdm", "true", "--output_dir", "tuned",
    )  # fmt: skip
    run("train-prm", *LEARNING, "--max_steps", "2", "--output_dir", "prm")
    run("label", "--trajectories", "rollouts", "--label_estimator", "td_gae", "--model", "prm")
    run(
        "estimate", *ACTING, "--trajectories", "rollouts", "--num_tasks", "2", "--samples_per_task", "1",
        "--rollouts", "2", "--output_dir", "estimates",
    )  # fmt: skip
    run(
        "probe-actions", *ACTING, "--trajectories", "rollouts", "--num_states", "2", "--rollouts", "4",
        "--samples_per_state", "4", "--actions_per_state", "2", "--output_dir", "probe",
    )  # fmt: skip
    run(
        "evaluate", *ACTING, "--scorers.agentprm", "scalar_prm", "--num_tasks", "2", "--num_dev_tasks", "2",
        "--scorers.clone", f"{{kind: model_confidence, model: {POLICY}}}", "--budgets", "1", "2",
        "--chosen_at", "2", "--beams", "2x2", "--output_dir", "evaluation",
    )  # fmt: skip
    run("train-rl", *RL, "--iterations", "1", "--refresh_every", "0", "--output_dir", "rl")
    caplog.set_level(logging.INFO)
    run(*collect, "--revision", "main")
    assert "reusing" in caplog.text


@pytest.mark.parametrize("model", ["org/absent", f"{POLICY}@v9"])
def test_a_model_that_is_not_there_is_one_line(
    offline: Path, capsys: pytest.CaptureFixture[str], model: str
) -> None:
    assert cli.main(["collect", *EPISODES, "--model", model]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"rlprm: ArtifactError: cannot get the model {model!r}")


def test_another_commit_is_another_policy(
    offline: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--num_tasks", "2", "--samples_per_task", "1", "--output_dir", "rollouts"]
    run("collect", *ACTING, *few)
    snapshot = models / "models--org--policy" / "snapshots" / hub_layout.COMMIT
    hub_layout.put(models, POLICY, snapshot, commit="a" * 40)
    download._snapshot.cache_clear()
    try:
        assert cli.main(["collect", *[POLICY if w == "policy" else w for w in ACTING], *few]) == 2
        assert "revision: '0123456789ab' there, 'aaaaaaaaaaaa' now" in capsys.readouterr().err
    finally:
        (models / "models--org--policy" / "refs" / "main").write_text(hub_layout.COMMIT)


def test_problems_of_a_hubs_data_set(offline: Path, models: Path, tmp_path: Path) -> None:
    content = tmp_path / "gsm8k"
    (content / "main").mkdir(parents=True)
    for part in ("train", "test"):
        rows = [{"question": f"{part} {i}?", "answer": f"It is {i}.\n#### {i}"} for i in range(8)]
        datasets.Dataset.from_list(rows).to_parquet(content / "main" / f"{part}-00000-of-00001.parquet")
    (content / "README.md").write_text(
        "---\nconfigs:\n- config_name: main\n  data_files:\n"
        "  - {split: train, path: main/train-*}\n  - {split: test, path: main/test-*}\n---\n"
    )
    hub_layout.put(models, "openai/gsm8k", content, kind="datasets")
    for name in ("openai/gsm8k", "openai/gsm8k@main"):
        found = envs.tasks("math", Split.TEST, 0, 2, {"source": "gsm8k", "data": name, "subset": "main"})
        assert "test 0?" in str(found[0].spec)


def test_trajectories_of_a_hubs_data_set(offline: Path, models: Path, tmp_path: Path) -> None:
    content = tmp_path / "traj"
    content.mkdir()
    said = [("human", None, "You craft."), ("gpt", False, "Ok."), ("human", None, "Goal: craft stick."),
            ("gpt", True, "Thought:\nI need wood.\n\nAction:\nget 1 oak log")]  # fmt: skip
    item = {
        "item_id": "textcraft_0",
        "conversations": [{"from": who, "loss": loss, "value": text} for who, loss, text in said],
    }
    (content / "textcraft_train.json").write_text(json.dumps([item] * 8))
    hub_layout.put(models, "AgentGym/AgentTraj-L", content, kind="datasets")
    run(
        "sft", "--environment", "textcraft", "--end", "on_success", "--demonstrations",
        "AgentGym/AgentTraj-L@main", "--model", "policy", "--action_format", "react", "--max_steps", "1",
        "--disable_tqdm", "true", "--output_dir", "tuned",
    )  # fmt: skip
    assert json.loads((offline / "tuned" / "stage.json").read_text())["results"]["demonstrations"] == 8
