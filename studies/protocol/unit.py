"""One unit from nothing: a seed's policy, its rollouts, and the reward models of a group of arms.

Every stage keeps what it made in the unit's folder, so that an interrupted unit continues. Nothing is shared
with other units.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from rlprm import scorers
from rlprm.data.store import TrajectoryStore
from rlprm.evaluation.pool import Pool
from rlprm.prm.config import PRMConfig
from rlprm.runtime.config import parse
from rlprm.runtime.record import read_record
from rlprm.scorers.base import Scorer
from rlprm.scorers.checkpoint import CheckpointScorer
from rlprm.stages import collect, estimate, probe_actions, sft
from rlprm.stages import train_prm as prm
from rlprm.stages.settings import (
    CollectConfig,
    EstimateConfig,
    EvaluateConfig,
    ProbeActionsConfig,
    SFTStageConfig,
)
from rlprm.types import Split
from studies.protocol import records
from studies.protocol.arms import CLONE, GROUPS, RATES, REFERENCE, SHARED, Arm, Group
from studies.protocol.environments import Environment

_TRAINING_SEEDS_APART = 1000
_STAGES = ("pretrain", "sft", "clone", "collect", "train_prm", "probe_actions")
_C = TypeVar("_C")


@dataclass(frozen=True)
class Unit:
    """One (environment, seed, group)."""

    environment: Environment
    group: str
    seed: int
    folder: Path
    """Of everything that the unit makes."""
    scale: float = 1.0
    """Below 1: fewer tasks, demonstrations and epochs of reward models, to try the code out."""

    @property
    def name(self) -> str:
        """Name of the record, without its ending."""
        return f"{self.environment.name}-{self.group}-s{self.seed}"

    @property
    def members(self) -> Group:
        """What the unit compares."""
        return GROUPS[self.group]

    @property
    def arms(self) -> dict[str, Arm]:
        """The reference and the group's arms."""
        return {REFERENCE: self.members.reference, **self.members.arms}

    @property
    def made(self) -> Path:
        """Folder of models and trajectories."""
        return self.folder / "made"

    def scaled(self, count: float, least: int = 1) -> int:
        """Return a number of tasks or epochs at the unit's scale."""
        return max(min(least, round(count)), round(count * self.scale))

    def has_recipe(self, stage: str) -> bool:
        """Whether the environment has a recipe of a stage."""
        return self._recipe(stage).is_file()

    def _recipe(self, stage: str) -> Path:
        return Path(self.environment.recipes) / f"{stage}_{self.environment.model}.yaml"

    def config(self, kind: type[_C], recipe: str, changes: Mapping[str, Any]) -> _C:
        """Read a recipe of the environment with the unit's seed and folder, and some changes."""
        settings = {"root": str(self.made), "seed": self.seed, **changes}
        words = [
            word
            for name, value in settings.items()
            for word in (f"--{name}", value if isinstance(value, str) else json.dumps(value))
        ]
        return parse(kind, ["--config", str(self._recipe(recipe)), *words])


def digest_of_recipes(unit: Unit) -> str:
    """Return a hash of what the recipes set for the unit."""
    stages = [*_STAGES, *(("estimate",) if any(arm.labels for arm in unit.arms.values()) else ())]
    return records.digest_of_recipes(
        Path(unit.environment.recipes), stages, unit.environment.model, budgets=budgets(unit)
    )


def make_policy(unit: Unit) -> str:
    """Train the policy; return its folder."""
    for stage in ("pretrain", "sft"):
        if unit.has_recipe(stage):
            config = unit.config(SFTStageConfig, stage, {})
            config = unit.config(
                SFTStageConfig,
                stage,
                # With fewer epochs, or far fewer demonstrations, the policy would never succeed.
                {
                    "num_demonstrations": unit.scaled(
                        config.num_demonstrations, config.num_demonstrations // 4
                    )
                },
            )
            sft.run(config)
            folder = config.output_dir
    return folder


def make_rollouts(unit: Unit) -> TrajectoryStore:
    """Collect the trajectories that all reward models of the unit learn from."""
    config = unit.config(CollectConfig, "collect", {})
    config.num_tasks = unit.scaled(config.num_tasks, 48)
    return collect.run(config)


def pool_config(unit: Unit, split: Split, samples: int) -> CollectConfig:
    """Return the settings of the candidates of the unit's own dev or test tasks."""
    count = {Split.TEST: unit.environment.test_tasks, Split.DEV: unit.environment.dev_tasks}[split]
    config = unit.config(CollectConfig, "collect", {"split": split.value})
    config.first_task, config.num_tasks = unit.seed * count, unit.scaled(count, 12)
    config.samples_per_task, config.output_dir = samples, str(unit.made / f"{split.value}-pool")
    return config


def make_pool(unit: Unit, split: Split, samples: int) -> Pool:
    """Sample the candidates of the unit's own dev or test tasks."""
    return Pool.from_trajectories(collect.run(pool_config(unit, split, samples)).read())


def budgets(unit: Unit) -> list[int]:
    """Return the budgets of best-of-N; the largest is the size of the test pool."""
    return sorted(unit.config(EvaluateConfig, "evaluate", {}).budgets)


def make_probe(unit: Unit) -> str | None:
    """Estimate actions at states of the dev tasks; None for an environment without the recipe."""
    if not unit.has_recipe("probe_actions"):
        return None
    config = unit.config(ProbeActionsConfig, "probe_actions", {"trajectories": str(unit.made / "dev-pool")})
    config.num_states = unit.scaled(config.num_states, 20)
    config.rollouts = unit.scaled(config.rollouts, 8)
    probe_actions.run(config)
    return config.output_dir


def prm_config(unit: Unit, name: str, training: int) -> PRMConfig:
    """Return the settings of one training of a reward model, or of the PRM that a clone stands in for."""
    arm = unit.arms[name]
    changes: dict[str, Any] = {**SHARED, **(arm.settings if arm.kind != CLONE else {})}
    if arm.labels:
        changes["label_file"] = str(unit.made / "estimates" / arm.labels)
    changes["seed"] = unit.seed + _TRAINING_SEEDS_APART * training
    changes["trajectories"] = str(unit.made / "rollouts")
    changes["model"] = str(unit.made / "policy")
    changes["output_dir"] = str(unit.made / "models" / f"{name}-{training}")
    config = unit.config(PRMConfig, "train_prm", changes)
    # At least one epoch behind the cold start.
    epochs = max(unit.scaled(int(config.num_train_epochs)), math.floor(config.cold_start_epochs) + 1)
    rate = config.learning_rate * arm.rate * RATES[CLONE if arm.kind == CLONE else config.head]
    return unit.config(PRMConfig, "train_prm", {**changes, "num_train_epochs": epochs, "learning_rate": rate})


def train(unit: Unit, name: str, training: int) -> Scorer:
    """Train a reward model, or continue, or find it finished; return its scorer."""
    arm = unit.arms[name]
    config = prm_config(unit, name, training)
    if arm.kind == CLONE:
        return _clone(unit, name, config)
    if arm.labels:
        _make_labels(unit)
    prm.run(config)
    return CheckpointScorer.load(name, config.output_dir)


def cost_of_training(unit: Unit, name: str, training: int) -> dict[str, float]:
    """Return optimiser steps, tokens and seconds of one training, from its record."""
    record = read_record(prm_config(unit, name, training).output_dir)
    results = record["results"]
    return {"steps": results["steps"], "tokens": results.get("tokens", 0), "seconds": record["seconds"]}


def _make_labels(unit: Unit) -> None:
    """Estimate the states of all trajectories, so that arms with these labels learn from as many."""
    config = unit.config(EstimateConfig, "estimate", {"output_dir": str(unit.made / "estimates")})
    estimate.run(replace(config, samples_per_task=None))


def _clone(unit: Unit, name: str, config: PRMConfig) -> Scorer:
    """Clone the successes among the PRM's training trajectories, for as many optimiser steps."""
    sft.run(clone_config(unit, config))
    return scorers.build(name, {"kind": "model_confidence", "model": config.output_dir})


def clone_config(unit: Unit, config: PRMConfig) -> SFTStageConfig:
    """Return the recipe of the clone with the optimisation of the PRM that the clone stands in for."""
    shared = {
        field: getattr(config, field)
        for field in (
            "model", "trajectories", "output_dir", "seed", "held_out_fraction", "num_train_epochs",
            "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate", "lora_r",
            "lr_scheduler_type", "warmup_steps", "logging_steps",
        )
    }  # fmt: skip
    return unit.config(SFTStageConfig, "clone", shared)
