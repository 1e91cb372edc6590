"""All stages in order on a laptop, from scratch, each from its recipe.

Every stage keeps what it made; running the quickstart again reuses it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from rlprm.prm.config import PRMConfig
from rlprm.rl.config import RLConfig
from rlprm.runtime.config import parse
from rlprm.runtime.files import read_json, write_json
from rlprm.runtime.record import read_record
from rlprm.stages import collect, evaluate, sft
from rlprm.stages import train_prm as prm
from rlprm.stages import train_rl as rl
from rlprm.stages.settings import CollectConfig, EvaluateConfig, QuickstartConfig, SFTStageConfig

log = logging.getLogger(__name__)
_SHORT = {"iterations": 3, "tasks_per_iteration": 48, "eval_every": 0, "test_tasks": 128, "test_samples": 2}
"""Agent RL as far as a few minutes go; the recipe goes on."""


class _Stage(NamedTuple):
    title: str
    config: type[Any]
    run: Callable[[Any], Any]


_STAGES = {
    "pretrain": _Stage("a model from scratch that has read demonstrations", SFTStageConfig, sft.run),
    "sft": _Stage("a policy: it learns the expert's actions", SFTStageConfig, sft.run),
    "collect": _Stage("rollouts of the policy", CollectConfig, collect.run),
    "train_prm": _Stage("AgentPRM: promise and progress from TD-GAE labels", PRMConfig, prm.run),
    "train_orm": _Stage("ORM: the outcome alone", PRMConfig, prm.run),
    "clone": _Stage(
        "a clone of the successes, the baseline with AgentPRM's data and steps", SFTStageConfig, sft.run
    ),
    "evaluate": _Stage("best-of-N and beam search on held-out tasks", EvaluateConfig, evaluate.run),
    "train_rl": _Stage("agent RL: the AgentPRM judges every step", RLConfig, rl.run),
}
"""First part of a recipe's file name → its stage, in the order they run."""


def run(config: QuickstartConfig) -> None:
    """Demonstrations → policy → rollouts → AgentPRM, ORM and clone → best-of-N and beam search → agent RL."""
    started = time.perf_counter()
    root = Path(config.output_dir)
    # All recipes are read before the first one runs: a mistake in the last one is reported now.
    configs = {name: parse(stage.config, _arguments(config, name)) for name, stage in _STAGES.items()}
    returned = {}
    for number, (name, stage) in enumerate(_STAGES.items(), start=1):
        log.info("\n%d/%d  %s", number, len(_STAGES), stage.title)
        returned[name] = stage.run(configs[name])
    folders = {name: Path(of_stage.output_dir) for name, of_stage in configs.items()}
    results, better = folders["evaluate"], folders["train_rl"]
    seconds = {name: read_record(folder)["seconds"] for name, folder in folders.items()}
    summary = read_json(results / "summary.json")
    summary["seconds"] = {**seconds, "total": round(sum(seconds.values()), 2), "within": summary["seconds"]}
    summary["rl"] = returned["train_rl"]
    write_json(root / "summary.json", summary)
    log.info("%s: the numbers; %s and %s: the plots", root / "summary.json", results, better)
    log.info("this run took %.0f s, all stages together %.0f s", time.perf_counter() - started,
             summary["seconds"]["total"])  # fmt: skip


def _arguments(config: QuickstartConfig, name: str) -> list[str]:
    """Return the command line of a stage: its recipe, the root, and the changes to the recipe."""
    recipe = str(Path(config.recipes) / _file_name(name))
    changes = {**(_SHORT if name == "train_rl" else {}), **getattr(config, name)}
    of_all = ["--config", recipe, "--root", config.output_dir, "--seed", str(config.seed)]
    return [*of_all, *_words("--", changes)]


def _words(prefix: str, changes: Mapping[str, Any]) -> list[str]:
    """Return settings as words of a command line; keys of a mapping follow a dot."""
    words = []
    for name, value in changes.items():
        if isinstance(value, Mapping):
            words += _words(f"{prefix}{name}.", value)
        elif isinstance(value, list) and prefix == "--":
            words += [f"--{name}", *map(_word, value)]
        else:
            words += [prefix + name, _word(value)]
    return words


def _word(value: Any) -> str:
    """Return a value as YAML in one line."""
    return value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True).split("\n")[0]


def _file_name(recipe: str) -> str:
    return f"{recipe}_tiny.yaml"
