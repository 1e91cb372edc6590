"""The main job from nothing, on a laptop: the stages in order, each from its recipe.

Every stage keeps what it made; running the quickstart again reuses it.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from rlprm.errors import ArtifactError
from rlprm.prm.config import PRMConfig
from rlprm.rl.config import RLConfig
from rlprm.runtime.config import parse, setting
from rlprm.runtime.files import read_json, write_json
from rlprm.runtime.record import read_record
from rlprm.stages import collect, evaluate, sft
from rlprm.stages import train_prm as prm
from rlprm.stages import train_rl as rl
from rlprm.stages.collect import CollectConfig
from rlprm.stages.evaluate import EvaluateConfig
from rlprm.stages.sft import SFTStageConfig

log = logging.getLogger(__name__)
_RECIPES = ("pretrain", "sft", "collect", "train_prm", "train_orm", "evaluate", "train_rl")
_SHORT = ("--iterations", "6", "--eval_every", "0", "--test_samples", "2")
"""Agent RL as far as a few minutes go; the recipe goes on."""


@dataclass
class QuickstartConfig:
    """Settings of ``rlprm quickstart``; everything else stands in the recipes."""

    recipes: str = setting("recipes/babyai", "Folder of the recipes <stage>_tiny.yaml.")
    output_dir: str = setting("runs/quickstart", "Where everything goes.")
    seed: int = setting(0, "Seed of all stages.")

    def __post_init__(self) -> None:
        """Refuse a folder without recipes.

        Raises:
            ArtifactError: if there are none.
        """
        missing = [name for name in map(_file_name, _RECIPES) if not (Path(self.recipes) / name).exists()]
        if missing:
            raise ArtifactError(
                f"no recipes at {self.recipes!r} (expected {', '.join(missing)} there); "
                "run this from the root of the repository or set --recipes"
            )


def run(config: QuickstartConfig) -> None:
    """Demonstrations → policy → rollouts → AgentPRM and ORM → best-of-N and beam search → agent RL."""
    started = time.perf_counter()
    root = Path(config.output_dir)
    base, policy, rollouts, agentprm, orm, results, better = (
        str(root / name)
        for name in ("pretrained", "policy", "rollouts", "agentprm", "orm", "evaluation", "rl")
    )
    learn = ["--trajectories", rollouts]

    _say("1/7  a model from scratch that has read demonstrations")
    sft.run(parse(SFTStageConfig, _arguments(config, "pretrain", "--output_dir", base)))
    _say("2/7  a policy: it learns the expert's actions")
    sft.run(parse(SFTStageConfig, _arguments(config, "sft", "--model", base, "--output_dir", policy)))
    _say("3/7  rollouts of the policy")
    collect.run(
        parse(CollectConfig, _arguments(config, "collect", "--model", policy, "--output_dir", rollouts))
    )
    _say("4/7  AgentPRM: promise and progress from TD-GAE labels")
    prm.run(
        parse(PRMConfig, _arguments(config, "train_prm", *learn, "--model", policy, "--output_dir", agentprm))
    )
    _say("5/7  ORM: the outcome alone")
    prm.run(parse(PRMConfig, _arguments(config, "train_orm", *learn, "--model", base, "--output_dir", orm)))
    _say("6/7  best-of-N and beam search on held-out tasks")
    scorers = ["--scorers.agentprm", agentprm, "--scorers.orm", orm]
    searched = ["--model", policy, *scorers, "--output_dir", results]
    evaluate.run(parse(EvaluateConfig, _arguments(config, "evaluate", *searched)))
    _say("7/7  agent RL: the AgentPRM judges every step")
    trained = ["--model", policy, "--prm", agentprm, "--output_dir", better, *_SHORT]
    rl_summary = rl.run(parse(RLConfig, _arguments(config, "train_rl", *trained)))
    stages = {
        "pretrain": base,
        "sft": policy,
        "collect": rollouts,
        "train_prm": agentprm,
        "train_orm": orm,
        "evaluate": results,
        "train_rl": better,
    }
    seconds = {name: read_record(folder)["seconds"] for name, folder in stages.items()}
    summary = read_json(Path(results) / "summary.json")
    summary["seconds"] = {**seconds, "total": round(sum(seconds.values()), 2), "within": summary["seconds"]}
    summary["rl"] = rl_summary
    write_json(root / "summary.json", summary)
    log.info("%s: the numbers; %s and %s: the plots", root / "summary.json", results, better)
    log.info("this run took %.0f s, all stages together %.0f s", time.perf_counter() - started,
             summary["seconds"]["total"])  # fmt: skip


def _arguments(config: QuickstartConfig, recipe: str, *overrides: str) -> list[str]:
    path = str(Path(config.recipes) / _file_name(recipe))
    return ["--config", path, "--seed", str(config.seed), *overrides]


def _file_name(recipe: str) -> str:
    return f"{recipe}_tiny.yaml"


def _say(text: str) -> None:
    log.info("\n%s", text)
