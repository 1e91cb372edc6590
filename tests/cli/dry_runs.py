"""Recipes that are really run from end to end, on a small random model in the place of a big one.

Scaled down are numbers (tasks, tokens, rounds, width of searches) and the model; prompt style,
action format, loss, adapters and recomputed activations stay as the recipes have them. A model that knows
nothing fails always, and a reward model needs both outcomes: half of the episodes follow the expert
for as long as they began so.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from rlprm import envs
from rlprm.cli import run_stage
from rlprm.data.conversation import Conversation
from rlprm.data.formats import load_format
from rlprm.errors import DemonstrationError
from rlprm.models.tokenizer import train_tokenizer
from rlprm.policies.base import Completion
from rlprm.policies.hf import HFPolicy
from rlprm.policies.self_check import FirstWaveCheck
from rlprm.runtime.record import read_record
from rlprm.types import End, Split, Task
from tests.cli.recipes import ROOT, settings_of, stage_of
from tests.data.templates import CHATML_SMOLLM2, QWEN25
from tests.toys.agentgym_server import open_world, world_task

QWEN, SMOLLM2 = "qwen2.5-3b", "smollm2-135m"
"""Ends of the names of recipes."""
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
                 "--refresh_every", "0", "--report_to", "none", "--select", "last",
                 "--max_sampler_mismatch", "100"],
}  # fmt: skip


def names_of(environment: str, model: str = QWEN) -> tuple[str, ...]:
    """Return the recipes of an environment for a model, without the ends of their names."""
    if model == SMOLLM2:
        return (*CHAIN, "sft", "train_returns", "train_rl")
    return CHAIN if environment == MMLU else NAMES


def recipe(environment: str, name: str, model: str = QWEN) -> str:
    """Return the path of a recipe."""
    if environment == MMLU:
        return f"recipes/math/{name}_mmlu_{model}.yaml"
    stem = f"{name.removesuffix('_lora')}_{model}" + ("_lora" if name.endswith("_lora") else "")
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


SHAPES: dict[str, tuple[Any, Any]] = {
    QWEN: (Qwen2Config, Qwen2ForCausalLM),
    SMOLLM2: (LlamaConfig, LlamaForCausalLM),
}
STAND_INS = {"agentgym": agentgym_data, "math": gsm8k, MMLU: mmlu}
"""What writes the data of an environment whose data lies on the hub; returns the settings that name it."""


@dataclass(frozen=True)
class DryRun:
    """Where the stages of one environment put their results."""

    environment: str
    root: Path
    stand_ins: dict[str, Any]
    """Settings of the environment that are not the recipes'."""
    model: str = QWEN

    def recipe(self, name: str) -> str:
        """Path of a recipe."""
        return recipe(self.environment, name, self.model)

    def env_kwargs(self) -> dict[str, Any]:
        """Of its recipes, with the stand-ins."""
        return {**settings_of(self.recipe("collect"))["env_kwargs"], **self.stand_ins}

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
        return End(settings_of(self.recipe("collect"))["end"])

    def tasks(self, split: Split, start: int, count: int) -> list[Task]:
        """Tasks as they are in this process."""
        found = envs.load(self.own).tasks(split, start, count, **self.env_kwargs())
        if self.environment == "agentgym":
            return [world_task("textcraft", task.spec["data_idx"]) for task in found]
        return found

    def run(self, name: str, *changes: str) -> None:
        """Run a recipe, reading and writing below the root."""
        path = self.recipe(name)
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
    """A small vocabulary of the environment's words under the model's own template."""
    module = envs.load(dry.world)
    style = settings_of(dry.recipe("collect"))["prompt"]
    texts = [m["content"] for m in module.opening(end=dry.end, style=style)]
    for task in dry.tasks(Split.TRAIN, 0, 8 if dry.world == "textworld" else 36):  # games take seconds
        texts.append(module.make(task, end=dry.end).reset())
    made = train_tokenizer([*texts, "Thought:\nMy next action is: .\n\nAction:\n"], vocab_size=700)
    made.chat_template = {QWEN: QWEN25, SMOLLM2: CHATML_SMOLLM2}[dry.model]
    return made


def dry_run(environment: str, root: Path, stand_ins: dict[str, Any], model: str = QWEN) -> DryRun:
    """Run all recipes of a model, each on what the one before left."""
    if model == QWEN and (write := STAND_INS.get(environment)):
        (root / "data").mkdir()
        stand_ins |= write(root / "data")
    made = DryRun(environment, root, stand_ins, model)
    tokenizer = tokenizer_for(made)
    # The architecture's shape: grouped keys, tied embeddings, the context length, rows that no token has.
    config, causal = SHAPES[model]
    shape = config(
        vocab_size=len(tokenizer) + 40, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=32_768,
        tie_word_embeddings=True, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    base = made.folder("base")
    causal(shape).save_pretrained(base)
    tokenizer.save_pretrained(base)

    policy = str(base)
    if environment != MMLU:
        made.run("sft", "--model", str(base))
        policy = str(made.folder("sft"))
    collect = settings_of(made.recipe("collect"))
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
        # The expert's log-probabilities are none of the policy's: the self-check would stop the run.
        patch.setattr(FirstWaveCheck, "__call__", lambda *_: None)
        made.run("collect", "--model", policy)
        learn = ["--model", policy, "--trajectories", str(made.folder("collect"))]
        made.run("estimate", *learn)
        trained = {"train_prm", "train_prm_lora", "train_orm", "train_returns", "clone"}
        for name in trained & {*names_of(environment, model)}:
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


def check_settings(dry: DryRun) -> None:
    """Every stage left a record with the settings of its recipe, but for what was scaled."""
    scaled = {"model", "output_dir", "trajectories", "scorers", "held_out_fraction", "num_demonstrations"}
    scaled |= {"num_tasks", "samples_per_task", "round_limit", "max_new_tokens", "wave_size"}
    scaled |= {"num_dev_tasks", "budgets", "chosen_at", "beams", "demonstrations", "label_file"}
    scaled |= {"num_states", "samples_per_state", "actions_per_state", "rollouts"}
    scaled |= {SMALL["train-rl"][i].removeprefix("--") for i in range(0, len(SMALL["train-rl"]), 2)} | {"prm"}
    for name in names_of(dry.environment, dry.model):
        wanted = settings_of(dry.recipe(name))
        if "env_kwargs" in wanted:
            wanted["env_kwargs"] |= dry.stand_ins
        ran = read_record(dry.folder(name))["config"]
        ran = {key: {"SchedulerType.COSINE": "cosine"}.get(str(value), value) for key, value in ran.items()}
        common = (wanted.keys() & ran.keys()) - scaled
        assert {key: ran[key] for key in common} == {key: wanted[key] for key in common}
        assert len(common) >= 5
