"""What the studies have in common: the tiny BabyAI recipes with some settings changed, one folder a seed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from rlprm.models.loading import load_tokenizer
from rlprm.models.tiny import tiny_model
from rlprm.runtime.config import parse
from rlprm.stages import collect, sft
from rlprm.stages.settings import CollectConfig, SFTStageConfig

RECIPES = Path("recipes/babyai")
_C = TypeVar("_C")


def parsed(config_type: type[_C], recipe: str, overrides: Mapping[str, Any]) -> _C:
    """Read a recipe with some settings changed."""
    arguments = [text for name, value in overrides.items() for text in (f"--{name}", str(value))]
    return parse(config_type, ["--config", str(RECIPES / f"{recipe}_tiny.yaml"), *arguments])


def trained_model(root: Path, seed: int, name: str) -> str:
    """Return the folder of a model to start from; made if it does not exist.

    Args:
        root: of the study.
        seed: whose folder.
        name: ``policy``, ``pretrained``, ``pretrained_m`` (of size m) or ``random``.
    """
    folder = root / f"s{seed}" / name
    overrides: dict[str, Any] = {"seed": seed, "output_dir": str(folder)}
    if name == "random":
        tokenizer = load_tokenizer(trained_model(root, seed, "pretrained"))
        tiny_model(tokenizer, seed=seed).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    elif name == "policy":
        overrides["model"] = trained_model(root, seed, "pretrained")
        sft.run(parsed(SFTStageConfig, "sft", overrides))
    else:
        size = {"size": "m"} if name.endswith("_m") else {}
        sft.run(parsed(SFTStageConfig, "pretrain", {**overrides, **size}))
    return str(folder)


def rollouts(root: Path, seed: int, name: str = "rollouts") -> str:
    """Return the folder of trajectories of the policy; ``rollouts192x16`` has 192 tasks with 16 each."""
    config = collect_config(root, seed, name)
    if size := name.removeprefix("rollouts"):
        tasks, _, samples = size.partition("x")
        config.num_tasks, config.samples_per_task = int(tasks), int(samples or config.samples_per_task)
    collect.run(config)
    return config.output_dir


def collect_config(root: Path, seed: int, name: str) -> CollectConfig:
    """Return the settings of a collection with the policy of a seed."""
    policy = trained_model(root, seed, "policy")
    return parsed(
        CollectConfig, "collect", {"seed": seed, "model": policy, "output_dir": str(root / f"s{seed}" / name)}
    )
