"""The recipes for Qwen2.5-3B, really run from end to end, on a random model of its architecture and template.

Scaled down are numbers (tasks, tokens, rounds, width of searches) and the model; prompt style,
action format, loss, adapters and recomputed activations stay as the recipes have them. A model that knows
nothing fails always, and a reward model needs both outcomes: half of the episodes follow the expert
for as long as they began so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import (
    AutoModelForCausalLM,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from rlprm import envs
from rlprm.cli import run_stage
from rlprm.data.conversation import Conversation
from rlprm.data.formats import load_format
from rlprm.data.store import TrajectoryStore
from rlprm.errors import DemonstrationError
from rlprm.models.loading import revision_of
from rlprm.models.manifest import Manifest
from rlprm.models.tokenizer import train_tokenizer
from rlprm.policies.base import Completion
from rlprm.policies.hf import HFPolicy
from rlprm.runtime.record import read_record
from rlprm.scorers.checkpoint import CheckpointScorer
from rlprm.types import End, Split, Task
from tests.cli.recipes import RECIPES, ROOT, settings_of, stage_of
from tests.data.templates import QWEN25
from tests.toys.agentgym_server import open_world, serving, world_task

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Glyph .* missing from font"),  # what a model that knows nothing writes
]

ENVIRONMENTS = ("agentgym", "babyai", "math", "textcraft", "textworld", "webshop")
CHAIN = ("collect", "train_prm", "train_orm", "estimate", "train_pvm", "clone", "evaluate", "probe_actions")
NAMES = ("sft", *CHAIN, "train_prm_lora", "train_rl")
MMLU = "mmlu"
"""Recipes of ``math`` without a warm start, adapters and agent RL."""
SMALL: dict[str, list[str]] = {
    "sft": ["--num_demonstrations", "6", "--max_steps", "2", "--workers", "1"],
    "collect": ["--num_tasks", "4", "--samples_per_task", "4", "--round_limit", "8", "--max_new_tokens", "4",
                "--wave_size", "8"],
    "train-prm": ["--held_out_fraction", "0.25"],
    "estimate": ["--rollouts", "2", "--round_limit", "8", "--max_new_tokens", "4", "--wave_size", "16"],
    "probe-actions": ["--num_states", "2", "--samples_per_state", "4", "--actions_per_state", "2",
                      "--rollouts", "4", "--round_limit", "8", "--max_new_tokens", "4", "--wave_size", "8"],
    "evaluate": ["--num_tasks", "2", "--num_dev_tasks", "2", "--budgets", "1", "2", "--chosen_at", "2",
                 "--beams", "2x2", "--round_limit", "8", "--max_new_tokens", "4", "--wave_size", "8"],
    "train-rl": ["--iterations", "2", "--tasks_per_iteration", "4", "--round_limit", "8",
                 "--max_new_tokens", "4", "--wave_size", "8", "--critic_warmup_iterations", "1",
                 "--eval_every", "2", "--eval_tasks", "2", "--test_tasks", "2", "--repeat_probe", "2",
                 "--refresh_every", "0", "--report_to", "none", "--select", "last"],
}  # fmt: skip


def names_of(environment: str) -> tuple[str, ...]:
    return CHAIN if environment == MMLU else NAMES


def recipe(environment: str, name: str) -> str:
    if environment == MMLU:
        return f"recipes/math/{name}_mmlu_qwen2.5-3b.yaml"
    stem = name.removesuffix("_lora") + "_qwen2.5-3b" + ("_lora" if name.endswith("_lora") else "")
    return f"recipes/{environment}/{stem}.yaml"


def gsm8k(folder: Path) -> dict[str, Any]:
    """Write generated problems in GSM8K's form, as many as were published."""
    for part, split, count in (("train", Split.TRAIN, 7473), ("test", Split.TEST, 1319)):
        rows = [
            {"question": f"{number}. {task.spec['question']}", "answer": "\n".join(task.spec["solution"])}
            for number, task in enumerate(envs.load("math").tasks(split, 0, count))
        ]
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"data": str(folder)}


def mmlu(folder: Path) -> dict[str, Any]:
    """Write generated questions in MMLU's form."""
    for part, count in (("train", 600), ("test", 300)):
        rows = [
            {"question": f"{part}: what is {n} + 1?", "choices": [str(n + k) for k in range(4)], "answer": 1}
            for n in range(count)
        ]
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"data": str(folder)}


def agentgym_data(folder: Path) -> dict[str, Any]:
    """Write files in AgentTraj's and AgentEval's form about the server that the tests play."""
    write = load_format("react").write
    for part, indices in (("train", range(40)), ("test", range(100, 110))):
        items = []
        for index in indices:
            talk = [("human", None, "Instructions."), ("gpt", False, "OK.")]
            episode = open_world("textcraft", index)
            talk.append(("human", None, episode.reset()))
            for action in envs.load("textcraft").demonstrate(
                world_task("textcraft", index), end=End.ON_SUCCESS
            ):
                talk.append(("gpt", True, write(action)))
                talk.append(("human", None, episode.step(action).observation))
            conversation = [{"from": who, "loss": loss, "value": text} for who, loss, text in talk]
            items.append({"item_id": f"textcraft_{index}", "conversations": conversation})
        (folder / f"textcraft_{part}.json").write_text(json.dumps(items))
    return {"data_indices": {part: str(folder / f"textcraft_{part}.json") for part in ("train", "test")}}


STAND_INS = {"agentgym": agentgym_data, "math": gsm8k, MMLU: mmlu}
"""What writes the data of an environment whose data lies on the hub; returns the settings that name it."""


@dataclass(frozen=True)
class DryRun:
    """Where the stages of one environment put their results."""

    environment: str
    root: Path
    stand_ins: dict[str, Any]
    """Settings of the environment that are not the recipes'."""

    def env_kwargs(self) -> dict[str, Any]:
        """Of its recipes, with the stand-ins."""
        return {**settings_of(recipe(self.environment, "collect"))["env_kwargs"], **self.stand_ins}

    def folder(self, name: str) -> Path:
        return self.root / name

    @property
    def world(self) -> str:
        """The environment that runs in this process, the server's for a served one."""
        return {"agentgym": "textcraft", MMLU: "math"}.get(self.environment, self.environment)

    @property
    def own(self) -> str:
        """The environment that the recipes name."""
        return "math" if self.environment == MMLU else self.environment

    @property
    def end(self) -> End:
        return End(settings_of(recipe(self.environment, "collect"))["end"])

    def tasks(self, split: Split, start: int, count: int) -> list[Task]:
        """Tasks as they are in this process."""
        found = envs.load(self.own).tasks(split, start, count, **self.env_kwargs())
        if self.environment == "agentgym":
            return [world_task("textcraft", task.spec["data_idx"]) for task in found]
        return found

    def run(self, name: str, *changes: str) -> None:
        """Run a recipe, reading and writing below the root."""
        path = recipe(self.environment, name)
        stage = stage_of(path)
        small = SMALL["train-prm"] if name == "clone" else SMALL[stage]  # as many steps as a PRM
        arguments = ["--config", str(ROOT / path), *small, "--output_dir", str(self.folder(name))]
        arguments += ["--disable_tqdm", "true"] if stage in ("sft", "train-prm") else []
        if stage != "train-prm":
            arguments += [
                word
                for k, v in self.stand_ins.items()
                for word in (f"--env_kwargs.{k}", yaml.safe_dump(v).strip())
            ]
        if "demonstrations" in settings_of(path):
            arguments += ["--demonstrations", str(self.folder("data") / "textcraft_train.json")]
        run_stage(stage, [*arguments, *changes])


@dataclass
class Expert:
    """What the expert says at each turn of the tasks it can solve, found by a task's first observation."""

    says: dict[str, list[str]]

    @classmethod
    def of(cls, tasks: Sequence[Task], action_format: str, end: End) -> Expert:
        says = {}
        for task in tasks:
            module = envs.load(task.environment)
            try:
                actions = module.demonstrate(task, end=end)
            except DemonstrationError:
                continue
            opening = module.make(task, end=end).reset()
            says[opening] = [load_format(action_format).write(action) for action in actions]
        return cls(says)

    def line(self, conversation: Conversation, seed: int) -> str | None:
        """What it says next; None where it has nothing to say, or the episode did not begin by its lines."""
        turn = len(conversation.steps)
        said = [m["content"] for m in conversation.messages if m["role"] == "assistant"]
        opening = conversation.messages[len(conversation.messages) - 1 - 2 * turn]["content"]
        lines = self.says.get(opening, [])
        follows = seed % 2 == 0 if turn == 0 else said[len(said) - turn :] == lines[:turn]
        return lines[turn] if follows and turn < len(lines) else None


def tokenizer_for(dry: DryRun) -> PreTrainedTokenizerBase:
    """A small vocabulary of the environment's words under Qwen2.5's own template."""
    module = envs.load(dry.world)
    style = settings_of(recipe(dry.environment, "collect"))["prompt"]
    texts = [m["content"] for m in module.opening(end=dry.end, style=style)]
    for task in dry.tasks(Split.TRAIN, 0, 8 if dry.world == "textworld" else 36):  # games take seconds
        texts.append(module.make(task, end=dry.end).reset())
    made = train_tokenizer([*texts, "Thought:\nMy next action is: .\n\nAction:\n"], vocab_size=700)
    made.chat_template = QWEN25
    return made


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


def dry_run(environment: str, root: Path, stand_ins: dict[str, Any]) -> DryRun:
    """Run all recipes."""
    if write := STAND_INS.get(environment):
        (root / "data").mkdir()
        stand_ins |= write(root / "data")
    made = DryRun(environment, root, stand_ins)
    tokenizer = tokenizer_for(made)
    # The architecture's shape: grouped keys, tied embeddings, the context length, rows that no token has.
    shape = Qwen2Config(
        vocab_size=len(tokenizer) + 40, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=32_768,
        tie_word_embeddings=True, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    base = made.folder("base")
    Qwen2ForCausalLM(shape).save_pretrained(base)
    tokenizer.save_pretrained(base)

    policy = str(base)
    if environment != MMLU:
        made.run("sft", "--model", str(base))
        policy = str(made.folder("sft"))
    collect = settings_of(recipe(environment, "collect"))
    tasks = [
        *made.tasks(Split.TRAIN, collect["first_task"], 4),
        *(task for split in (Split.TEST, Split.DEV) for task in made.tasks(split, 0, 2)),
    ]
    expert = Expert.of(tasks, collect["action_format"], made.end)
    act = HFPolicy.act

    def half_expert(
        self: HFPolicy, conversations: Sequence[Conversation], seeds: Sequence[int]
    ) -> list[Completion]:
        found = []
        for c, seed, own in zip(conversations, seeds, act(self, conversations, seeds), strict=True):
            line = expert.line(c, seed)
            ids = None if line is None else tuple(self.renderer.action_ids(line))
            found.append(own if ids is None else Completion(ids, (-1.0,) * len(ids)))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HFPolicy, "act", half_expert)
        made.run("collect", "--model", policy)
        learn = ["--model", policy, "--trajectories", str(made.folder("collect"))]
        made.run("estimate", *learn)
        for name in {"train_prm", "train_prm_lora", "train_orm", "clone"} & {*names_of(environment)}:
            made.run(name, *learn)
        made.run("train_pvm", *learn, "--label_file", str(made.folder("estimate")))
        scorers = ["--scorers.agentprm", str(made.folder("train_prm"))]
        scorers += ["--scorers.orm", str(made.folder("train_orm"))]
        scorers += ["--scorers.clone.model", str(made.folder("clone"))]
        made.run("evaluate", "--model", policy, *scorers)
        dev_pool = str(made.folder("evaluate") / "dev-pool")
        made.run("probe_actions", "--model", policy, "--trajectories", dev_pool)
        if environment != MMLU:
            made.run("train_rl", "--model", policy, "--prm", str(made.folder("train_prm")))
    return made


def test_every_big_recipe_is_run() -> None:
    there = {name for name in RECIPES if "qwen2.5-3b" in name}
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


def check_settings(dry: DryRun) -> None:
    """Every stage left a record with the settings of its recipe, but for what was scaled."""
    scaled = {"model", "output_dir", "trajectories", "scorers", "held_out_fraction", "num_demonstrations"}
    scaled |= {"num_tasks", "samples_per_task", "round_limit", "max_new_tokens", "wave_size"}
    scaled |= {"num_dev_tasks", "budgets", "chosen_at", "beams", "demonstrations", "label_file"}
    scaled |= {"num_states", "samples_per_state", "actions_per_state", "rollouts"}
    scaled |= {SMALL["train-rl"][i].removeprefix("--") for i in range(0, len(SMALL["train-rl"]), 2)} | {"prm"}
    for name in names_of(dry.environment):
        wanted = settings_of(recipe(dry.environment, name))
        if "env_kwargs" in wanted:
            wanted["env_kwargs"] |= dry.stand_ins
        ran = read_record(dry.folder(name))["config"]
        ran = {key: {"SchedulerType.COSINE": "cosine"}.get(str(value), value) for key, value in ran.items()}
        common = (wanted.keys() & ran.keys()) - scaled
        assert {key: ran[key] for key in common} == {key: wanted[key] for key in common}
        assert len(common) >= 6


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
    assert all(row["reward/prm"] != 0 for row in rows)
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
