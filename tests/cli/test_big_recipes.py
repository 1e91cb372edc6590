"""The recipes for Qwen2.5-3B, really run from end to end, on a random model of its architecture and template.

See ``tests/cli/dry_runs.py`` for what is scaled down.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from rlprm import envs
from rlprm.data.store import TrajectoryStore
from rlprm.models.loading import revision_of
from rlprm.models.manifest import Manifest
from rlprm.runtime.record import read_record
from rlprm.scorers.checkpoint import CheckpointScorer
from tests.cli.dry_runs import ENVIRONMENTS, MMLU, DryRun, check_settings, dry_run, names_of, recipe
from tests.cli.recipes import RECIPES, settings_of
from tests.toys.agentgym_server import serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Glyph .* missing from font"),  # what a model that knows nothing writes
]


@pytest.fixture(scope="module", params=ENVIRONMENTS)
def dry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DryRun]:
    """Run every big recipe of an environment, each on what the one before left."""
    environment = str(request.param)
    if requirement := envs.load("textworld").requirements() if environment == "textworld" else "":
        pytest.skip(requirement)
    with serving("textcraft") if environment == "agentgym" else nullcontext() as server:
        stand_ins = {} if server is None else {"server": server.url}
        yield dry_run(environment, tmp_path_factory.mktemp(environment), stand_ins)


@pytest.fixture(scope="module")
def choices(tmp_path_factory: pytest.TempPathFactory) -> DryRun:
    """Run the recipes for multiple choice."""
    return dry_run(MMLU, tmp_path_factory.mktemp(MMLU), {})


def test_every_big_recipe_is_run() -> None:
    there = {name for name in RECIPES if "qwen2.5-3b" in name and not name.endswith("_vllm.yaml")}
    assert there == {recipe(e, name) for e in (*ENVIRONMENTS, MMLU) for name in names_of(e)}


def test_stages_ran_with_the_settings_of_their_recipes(dry: DryRun) -> None:
    check_settings(dry)
    lora, full = (read_record(dry.folder(f"train_prm{kind}")) for kind in ("_lora", ""))
    assert (lora["config"]["lora_r"], lora["config"]["lora_alpha"]) == (16, 32)
    assert 2 * lora["results"]["trained_parameters"] < full["results"]["trained_parameters"]


def test_multiple_choice_has_a_chain_of_its_own_without_a_warm_start(choices: DryRun) -> None:
    check_settings(choices)
    tasks = {t.task.spec["letters"] for t in TrajectoryStore.open(choices.folder("collect")).read()}
    assert tasks == {"ABCD"}


def test_the_trajectories_have_the_real_layout_and_both_outcomes(dry: DryRun) -> None:
    trajectories = TrajectoryStore.open(dry.folder("collect")).read()
    assert len(trajectories) == 16
    assert {t.outcome.success for t in trajectories} == {True, False}
    tokenizer = AutoTokenizer.from_pretrained(dry.folder("sft"))
    react = settings_of(recipe(dry.environment, "collect"))["action_format"] == "react"
    for t in trajectories:
        text = tokenizer.decode(t.token_ids)
        assert text.startswith("<|im_start|>system\nYou are Qwen, created by Alibaba Cloud.")
        assert text.count("<|im_start|>system") == 1
        assert ("Thought:" in t.messages[0]["content"]) == react  # AgentGym's instructions
        assert text.count("<|im_start|>assistant\n") == len(t.steps) + 1  # the acknowledgement, too
    won = [t for t in trajectories if t.outcome.success]
    assert {("Action:" in t.messages[-2]["content"]) for t in won} == {react}
    ends = {"math": "#### ", "webshop": "click[Buy Now]", "agentgym": "craft "}
    last = ends.get(dry.environment, "finish")
    assert all(t.steps[-1].action.startswith(last) for t in won)


def test_what_is_saved_loads_with_stock_transformers(dry: DryRun) -> None:
    policy = AutoModelForCausalLM.from_pretrained(dry.folder("sft"))
    assert (type(policy).__name__, policy.config.use_cache) == ("Qwen2ForCausalLM", True)
    trajectory = TrajectoryStore.open(dry.folder("collect")).read()[0]
    for name in ("train_prm", "train_prm_lora", "train_orm"):
        folder = dry.folder(name)
        stock = AutoModelForTokenClassification.from_pretrained(folder).eval()
        with torch.no_grad():
            logits = stock(input_ids=torch.tensor([trajectory.token_ids])).logits[0, :, 0]
        (scores,) = CheckpointScorer.load(name, str(folder)).score([trajectory])
        expected = logits[list(trajectory.value_positions)].tolist()
        assert [scores.initial, *scores.values] == pytest.approx(expected, abs=1e-4)
        assert any(expected)  # the head has left zero
        manifest = Manifest.load(folder)
        wanted = settings_of(recipe(dry.environment, "collect"))
        for setting in ("prompt", "action_format", "end"):
            assert getattr(manifest, setting) == wanted[setting]


def test_the_evaluation_has_every_row(dry: DryRun) -> None:
    summary = json.loads((dry.folder("evaluate") / "summary.json").read_text())
    rows = {(r["strategy"], r["scorer"], r["n"]) for r in summary["evaluation"]}
    for scorer in ("agentprm", "orm", "clone"):
        assert {("best_of_n", scorer, 1), ("best_of_n", scorer, 2), ("beam", scorer, 2)} <= rows
    assert 0 < summary["policy"]["sample_mean"] < 1


def test_agent_rl_trains_and_saves_a_policy(dry: DryRun) -> None:
    summary = json.loads((dry.folder("train_rl") / "summary.json").read_text())
    assert summary["iterations"] == 2
    assert summary["env_steps"] > 8
    rows = [json.loads(line) for line in (dry.folder("train_rl") / "metrics.jsonl").read_text().splitlines()]
    assert all(row["credit/prm_share"] != 0 for row in rows)
    before, after = (AutoModelForCausalLM.from_pretrained(dry.folder(n)) for n in ("sft", "train_rl"))
    moved = [(a - b).abs().max().item() for a, b in zip(before.parameters(), after.parameters(), strict=True)]
    assert sum(m > 0 for m in moved) == 2 * 7  # adapters on the linear layers of two blocks


def test_baselines_cost_and_learn_what_agentprm_does(dry: DryRun) -> None:
    names = ("train_prm", "train_orm", "train_pvm", "clone")
    records = {name: read_record(dry.folder(name)) for name in names}
    assert len({record["results"]["steps"] for record in records.values()}) == 1
    assert len({records[name]["results"]["trajectories"] for name in names[:3]}) == 1
    assert records["clone"]["results"]["demonstrations"] < records["train_prm"]["results"]["trajectories"]
    assert {records[name]["config"]["base"] for name in names} == {revision_of(str(dry.folder("sft")))}
    assert Manifest.load(dry.folder("train_pvm")).label_estimator == "monte_carlo"


def test_a_likelihood_head_is_a_setting_of_the_same_recipe(dry: DryRun) -> None:
    """Tied embeddings with rows that no token has, messages with a thought before the action."""
    learn = ["--model", str(dry.folder("sft")), "--trajectories", str(dry.folder("collect"))]
    output = dry.folder("train_prm_likelihood")
    head = ["--head", "lm", "--lm_scale", "0.01", "--output_dir", str(output)]
    dry.run("train_prm_lora", *learn, *head)
    trajectory = TrajectoryStore.open(dry.folder("collect")).read()[0]
    (scores,) = CheckpointScorer.load("prm", str(output)).score([trajectory])
    assert len(scores.values) == len(trajectory.steps)
    AutoModelForCausalLM.from_pretrained(output)
    AutoModelForTokenClassification.from_pretrained(output)


def test_adapters_train_the_policy_too(dry: DryRun) -> None:
    """The override that the SFT recipe's header names."""
    lora = ["--lora_r", "16", "--learning_rate", "1e-4", "--gradient_accumulation_steps", "2"]
    dry.run("sft", "--model", str(dry.folder("base")), *lora, "--output_dir", str(dry.folder("sft_lora")))
    before, after = (AutoModelForCausalLM.from_pretrained(dry.folder(n)) for n in ("base", "sft_lora"))
    moved = [(a - b).abs().max().item() for a, b in zip(before.parameters(), after.parameters(), strict=True)]
    assert 0 < max(moved) < 0.1
    assert sum(m > 0 for m in moved) == 2 * 7  # the linear layers of two blocks
