"""The Qwen2.5-3B recipes at full size on one GPU, for a few updates: seconds, tokens, peak memory of each.

    python scripts/bench/big.py --output big.json                      # all parts, one process each
    python scripts/bench/big.py --size tiny --parts sft collect        # a dry run on any machine

The model has Qwen2.5-3B's shape and random weights, so figures speak of speed and memory, not of quality. It
never closes an action: each has the full number of tokens. As it never succeeds either, every other
trajectory is called a success before a PRM is trained on them.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import Qwen2Config, Qwen2ForCausalLM

from rlprm import envs
from rlprm.cli import run_stage
from rlprm.data.store import TrajectoryStore
from rlprm.models.tokenizer import train_tokenizer
from rlprm.runtime.files import write_json
from rlprm.runtime.record import read_record
from rlprm.types import End, Outcome, Split

RECIPES = Path("recipes/babyai")
SHAPES: dict[str, dict[str, Any]] = {
    "3b": {
        "vocab_size": 151_936, "hidden_size": 2048, "intermediate_size": 11_008, "num_hidden_layers": 36,
        "num_attention_heads": 16, "num_key_value_heads": 2,
    },
    "tiny": {
        "vocab_size": 2_000, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2,
    },
}  # fmt: skip
FEW_LEVELS = ["--env_kwargs.levels", "[GoToLocalS8N7, PickupLoc, PutNextLocalS6N4]"]
# 8 sequences an update; on 8 GPUs the recipes have 16 or 32.
TRAINED = ["--max_steps", "4", "--warmup_steps", "0", "--save_strategy", "no", "--eval_strategy", "no"]
SHORT = ["--round_limit", "6", "--max_new_tokens", "64"]
SFT = ["--num_demonstrations", "48", "--workers", "4", "--gradient_accumulation_steps", "4", *FEW_LEVELS]
RL = [
    "--iterations", "3", "--tasks_per_iteration", "32", "--critic_warmup_iterations", "1",
    "--eval_every", "0",
    "--test_tasks", "0", "--repeat_probe", "2", "--refresh_every", "0", "--save_every", "0",
    "--report_to", "none", *SHORT, *FEW_LEVELS,
]  # fmt: skip

PARTS: dict[str, tuple[str, str, list[str]]] = {
    # name: (stage, recipe, changes)
    "sft": ("sft", "sft", [*TRAINED, *SFT]),
    "sft_lora": ("sft", "sft", [*TRAINED, *SFT, "--lora_r", "16", "--learning_rate", "1e-4"]),
    "collect": ("collect", "collect", ["--num_tasks", "16", "--samples_per_task", "4", "--wave_size", "64",
                                       *SHORT, *FEW_LEVELS]),
    "train_prm": ("train-prm", "train_prm", [*TRAINED, "--gradient_accumulation_steps", "4"]),
    "train_prm_lora": ("train-prm", "train_prm_lora", [*TRAINED, "--gradient_accumulation_steps", "8"]),
    "train_rl": ("train-rl", "train_rl", RL),
}  # fmt: skip
SHARDED = {"train_prm_zero2": "zero2", "train_prm_zero3": "zero3", "train_rl_zero3": "zero3"}
"""Parts that run under a file of ds_configs/, in one process."""


def base_model(root: Path, size: str) -> str:
    """Return the folder of a random model with a tokenizer of the environment's words; made if need be."""
    folder = root / "base"
    if (folder / "config.json").exists():
        return str(folder)
    module = envs.load("babyai")
    texts = [m["content"] for m in module.opening(end=End.DECLARED, style="agentgym")]
    texts += [
        module.make(task, end=End.DECLARED).reset()
        for task in module.tasks(Split.TRAIN, 0, 100, levels=["GoToLocalS8N7", "PickupLoc"])
    ]
    tokenizer = train_tokenizer([*texts, "Thought:\nMy next action is: .\n\nAction:\n"], vocab_size=1500)
    config = Qwen2Config(
        **SHAPES[size], max_position_embeddings=32_768, tie_word_embeddings=True, rope_theta=1e6,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, dtype="bfloat16",
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = Qwen2ForCausalLM(config)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def run_part(root: Path, size: str, name: str, more: list[str]) -> dict[str, Any]:
    """Run one part in this process and return what it took."""
    base, folder = base_model(root, size), root / name
    stage, recipe, changes = PARTS[name.partition("_zero")[0]]
    inputs = {"model": base, "output_dir": str(folder)}
    if stage == "train-prm":
        inputs["trajectories"] = str(root / "both")
    if stage == "train-rl":
        inputs["prm"] = str(root / "train_prm_lora")
    kind = "_lora" if recipe.endswith("_lora") else ""
    file = RECIPES / f"{recipe.removesuffix('_lora')}_qwen2.5-3b{kind}.yaml"
    arguments = ["--config", str(file), *changes, *(w for k, v in inputs.items() for w in (f"--{k}", v))]
    ends: list[float] = []

    def stepped(*_: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        ends.append(time.perf_counter())

    register_optimizer_step_post_hook(stepped)
    run_stage(stage, [*arguments, *more])
    record = read_record(folder)
    found: dict[str, Any] = {
        "part": name,
        "seconds": record["seconds"],
        "seconds_between_updates": [round(b - a, 3) for a, b in pairwise(ends)],
        "results": record["results"],
    }
    if torch.cuda.is_available():
        found["device"] = torch.cuda.get_device_name()
        found["peak_allocated_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
        found["peak_reserved_gb"] = round(torch.cuda.max_memory_reserved() / 1e9, 2)
    if stage == "collect":
        found |= _both_outcomes(root, folder)
    if stage == "train-rl":
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        shown = ("time/", "ppo/", "rollout/turns", "rollout/sampled_tokens")
        found["iterations"] = [
            {k: v for k, v in json.loads(line).items() if k.startswith(shown)} for line in lines
        ]
    return found


def _both_outcomes(root: Path, folder: Path) -> dict[str, float]:
    """Store the trajectories again, every other one as a success; returns their mean length."""
    made = TrajectoryStore.open(folder)
    trajectories = made.read()
    store = TrajectoryStore.create(root / "both", made.meta)
    store.write(0, [replace(t, outcome=_outcome(t.sample % 2 == 0)) for t in trajectories])
    return {
        "trajectories": len(trajectories),
        "tokens_of_a_trajectory": sum(len(t.token_ids) for t in trajectories) / len(trajectories),
        "sampled_tokens": sum(t.action_tokens for t in trajectories),
    }


def _outcome(success: bool) -> Outcome:
    return Outcome(float(success), success, "synthetic")


def main() -> None:
    """Run the parts, each in a process of its own, or one of them here."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=list(SHAPES), default="3b")
    parts = [*PARTS, *SHARDED]
    parser.add_argument("--parts", nargs="+", default=parts, choices=parts, metavar="PART")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench_big"))
    parser.add_argument("--output", type=Path, help="where the figures go, as JSON")
    parser.add_argument("--here", action="store_true", help="run the one part in this process")
    arguments, more = parser.parse_known_args()
    if arguments.here:
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        found = run_part(arguments.folder, arguments.size, arguments.parts[0], more)
        write_json(arguments.folder / f"{arguments.parts[0]}.json", found)
        return
    figures = []
    for part in arguments.parts:
        launch: list[str] = []
        if part in SHARDED:
            launch = ["-m", "accelerate.commands.launch", "--num_processes", "1"]
            launch += ["--config_file", f"ds_configs/{SHARDED[part]}.yaml"]
        command = [sys.executable, *launch, __file__, "--here", "--size", arguments.size, "--parts", part]
        done = subprocess.run([*command, "--folder", str(arguments.folder), *more], check=False)
        file = arguments.folder / f"{part}.json"
        found = json.loads(file.read_text()) if done.returncode == 0 else {"part": part, "failed": True}
        figures.append(found)
        print(json.dumps({k: v for k, v in found.items() if k not in ("results", "iterations")}), flush=True)
        if arguments.output:
            write_json(arguments.output, {"size": arguments.size, "parts": figures})


if __name__ == "__main__":
    main()
