"""The recipes for SmolLM2-135M, really run from end to end, on a random model of its shape and template.

See ``tests/cli/dry_runs.py`` for what is scaled down.
"""

from __future__ import annotations

import json

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlprm.data.store import TrajectoryStore
from rlprm.runtime.record import read_record
from tests.cli.dry_runs import SMOLLM2, DryRun, check_settings, dry_run, names_of, recipe
from tests.cli.recipes import RECIPES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Glyph .* missing from font"),  # what a model that knows nothing writes
]
ENVIRONMENTS = ("babyai", "math", "textcraft", "webshop")


@pytest.fixture(scope="module", params=ENVIRONMENTS)
def dry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> DryRun:
    environment = str(request.param)
    return dry_run(environment, tmp_path_factory.mktemp(environment), {}, SMOLLM2)


def test_every_recipe_is_run() -> None:
    there = {name for name in RECIPES if SMOLLM2 in name}
    assert there == {recipe(e, name, SMOLLM2) for e in ENVIRONMENTS for name in names_of(e, SMOLLM2)}


def test_stages_ran_with_the_settings_of_their_recipes(dry: DryRun) -> None:
    check_settings(dry)
    for name in ("sft", "train_prm", "clone"):
        assert read_record(dry.folder(name))["config"]["lora_r"] == 8


def test_messages_are_actions_under_the_models_own_template(dry: DryRun) -> None:
    tokenizer = AutoTokenizer.from_pretrained(dry.folder("sft"))
    trajectories = TrajectoryStore.open(dry.folder("collect")).read()
    assert {t.outcome.success for t in trajectories} == {True, False}
    for t in trajectories:
        text = tokenizer.decode(t.token_ids)
        assert text.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
        assert text.count("<|im_start|>assistant\n") == len(t.steps)


def test_baselines_cost_what_agentprm_does(dry: DryRun) -> None:
    names = ("train_prm", "train_orm", "train_returns", "train_pvm", "clone")
    steps = {read_record(dry.folder(name))["results"]["steps"] for name in names}
    assert len(steps) == 1


def test_search_and_agent_rl_end_with_their_tables(dry: DryRun) -> None:
    summary = json.loads((dry.folder("evaluate") / "summary.json").read_text())
    assert {"agentprm", "orm", "clone"} <= {row["scorer"] for row in summary["evaluation"]}
    assert json.loads((dry.folder("train_rl") / "summary.json").read_text())["iterations"] == 2
    AutoModelForCausalLM.from_pretrained(dry.folder("train_rl"))
