"""The quickstart from nothing to its summary, with recipes shrunk to seconds."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlprm.errors import ArtifactError, ConfigError
from rlprm.runtime.config import parse
from rlprm.stages import quickstart
from rlprm.stages.settings import QuickstartConfig

ROOT = Path(__file__).parents[2]
TINY: dict[str, dict[str, Any]] = {
    "pretrain": {
        "size": "xs",
        "num_demonstrations": 64,
        "num_train_epochs": 4,
        "learning_rate": 5e-3,
        "vocab_size": 300,
        "context_length": 512,
        "workers": 1,
    },
    "sft": {"num_demonstrations": 64, "num_train_epochs": 4, "learning_rate": 5e-3, "workers": 1},
    "collect": {"first_task": 1000, "num_tasks": 12, "samples_per_task": 4, "temperature": 1.5},
    "train_prm": {"per_device_train_batch_size": 8},
    "train_orm": {"per_device_train_batch_size": 8},
    "clone": {"per_device_train_batch_size": 8},
    "evaluate": {
        "num_tasks": 4,
        "num_dev_tasks": 4,
        "budgets": [1, 2, 4],
        "chosen_at": 4,
        "beams": ["2x2"],
        # The corridor has no rule that reads transcripts.
        "searches": {"step_best_of_2": {"strategy": "step_best_of_k", "k": 2, "n": 2, "accept": "scorer"}},
        "temperature": 1.5,
    },
    "train_rl": {"tasks_per_iteration": 4, "first_task": 2000, "test_tasks": 4, "repeat_probe": 2},
}


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipes of the repository on the corridor, with fewer of everything."""
    folder = tmp_path_factory.mktemp("recipes")
    world = {"environment": "tests.toys.corridor", "env_kwargs": {"length": 4}, "round_limit": 6}
    smaller = {f"{name}_tiny": changes for name, changes in TINY.items()}
    for name, changes in {"_tiny": world, "_reward_model_tiny": {}, **smaller}.items():
        recipe = yaml.safe_load((ROOT / f"recipes/babyai/{name}.yaml").read_text())
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**recipe, **changes}))
    return folder


@pytest.mark.slow
def test_it_runs_reuses_and_repeats(recipes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    with caplog.at_level(logging.INFO):
        quickstart.run(QuickstartConfig(recipes=str(recipes), output_dir=str(first)))
    assert "reusing" not in caplog.text
    summary = json.loads((first / "summary.json").read_text())
    assert {"policy", "evaluation", "oracle", "gap_closed", "aggregation", "seconds"} <= summary.keys()
    stages = {"pretrain", "sft", "collect", "train_prm", "train_orm", "clone", "evaluate", "train_rl"}
    assert set(summary["seconds"]) == {*stages, "total", "within"}
    assert summary["seconds"]["total"] == pytest.approx(sum(summary["seconds"][s] for s in stages), abs=0.02)
    assert {r["scorer"] for r in summary["evaluation"]} >= {"agentprm", "orm", "clone", "shortest", "random"}

    made = {
        p: p.stat().st_mtime_ns for p in first.rglob("*") if p.suffix in (".safetensors", ".jsonl", ".png")
    }
    caplog.clear()
    with caplog.at_level(logging.INFO):
        quickstart.run(QuickstartConfig(recipes=str(recipes), output_dir=str(first)))
    assert caplog.text.count("reusing") == 8
    assert {p: p.stat().st_mtime_ns for p in made} == made
    assert json.loads((first / "summary.json").read_text()) == summary

    quickstart.run(QuickstartConfig(recipes=str(recipes), output_dir=str(second)))
    again = json.loads((second / "summary.json").read_text())
    for part in ("policy", "evaluation", "oracle", "gap_closed", "aggregation", "paired"):
        assert again[part] == summary[part]
    assert again["rl"]["after"] == summary["rl"]["after"]


def test_changes_to_a_recipe_reach_its_stage_in_their_own_types(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [
        "--collect.num_tasks", "64", "--collect.env_kwargs.levels", "[GoToObj, Open]",
        "--evaluate.beams", "[2x2]",
        "--evaluate.budgets", "[1, 16]", "--train_rl.iterations", "2", "--train_prm.learning_rate", "1e-4",
        "--train_prm.label_estimator_kwargs.lam", "0.5", "--evaluate.with_confidence", "false", "--seed", "3",
    ]  # fmt: skip
    seen: dict[str, Any] = {}

    def stop(config: Any) -> None:
        seen[type(config).__name__] = config

    stages = {name: stage._replace(run=stop) for name, stage in quickstart._STAGES.items()}
    monkeypatch.setattr(quickstart, "_STAGES", stages)
    monkeypatch.setattr(quickstart, "read_record", lambda folder: {"seconds": 0.0})
    monkeypatch.setattr(quickstart, "read_json", lambda path: {"seconds": {}})
    monkeypatch.setattr(quickstart, "write_json", lambda path, content: None)
    quickstart.run(parse(QuickstartConfig, arguments))
    collect, evaluate, rl = seen["CollectConfig"], seen["EvaluateConfig"], seen["RLConfig"]
    assert (collect.num_tasks, collect.env_kwargs["levels"], collect.seed) == (64, ["GoToObj", "Open"], 3)
    assert (evaluate.beams, evaluate.budgets, evaluate.with_confidence) == (["2x2"], [1, 16], False)
    assert (rl.iterations, rl.eval_every, rl.test_samples) == (2, 0, 2)  # the quickstart's own changes
    assert rl.prm == "runs/quickstart/agentprm"


def test_a_mistake_in_a_change_ends_the_quickstart_before_its_first_stage(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown setting 'iteration'.*did you mean 'iterations'"):
        quickstart.run(QuickstartConfig(output_dir=str(tmp_path / "out"), train_rl={"iteration": 2}))
    assert not (tmp_path / "out").exists()


def test_recipes_that_are_missing_are_named_before_anything_runs(recipes: Path, tmp_path: Path) -> None:
    for name in ("pretrain", "sft", "collect", "train_prm", "train_rl"):
        (tmp_path / f"{name}_tiny.yaml").write_text((recipes / f"{name}_tiny.yaml").read_text())
    with pytest.raises(
        ArtifactError, match=r"expected train_orm_tiny\.yaml, clone_tiny\.yaml, evaluate_tiny\.yaml there"
    ):
        QuickstartConfig(recipes=str(tmp_path))
