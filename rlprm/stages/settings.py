"""Settings of the stages that have no room of their own; without torch, so that help is quick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rlprm.data.formats import THOUGHT_FORMATS
from rlprm.errors import ArtifactError, ConfigError
from rlprm.policies.chat import ChatConfig
from rlprm.policies.config import PolicyConfig, TaskConfig
from rlprm.runtime.resources import RECIPES, find_folder
from rlprm.runtime.settings import Settings, setting
from rlprm.runtime.tuning import LoadingConfig, OptimisationConfig, TuningConfig
from rlprm.stages.evaluate_parts.settings import EvaluateConfig
from rlprm.types import Split

__all__ = [
    "CollectConfig",
    "EstimateConfig",
    "EvaluateConfig",
    "ExportConfig",
    "LabelConfig",
    "ProbeActionsConfig",
    "QuickstartConfig",
    "SFTStageConfig",
]

_DATA = "Data"
_OUTCOMES = ("success", "score")
QUICKSTART_RECIPES = (
    "pretrain", "sft", "collect", "train_prm", "train_orm", "clone", "evaluate", "train_rl",
)  # fmt: skip
"""What the quickstart runs, in order."""


@dataclass
class SFTStageConfig(ChatConfig, TaskConfig, TuningConfig, OptimisationConfig):
    """Settings of ``rlprm sft``; those of ``trl.SFTConfig`` are accepted by name."""

    STAGE: ClassVar[str] = "sft"
    LIBRARY: ClassVar[str] = "trl.SFTConfig"

    model: str = setting(
        "tiny", "Model to start from: tiny (from scratch), a folder, or a hub id.", required=True,
        group="Model",
    )  # fmt: skip
    size: str = setting("s", "Size of the tiny model.", choices=("xs", "s", "m", "l"), group="Model")
    vocab_size: int = setting(
        768, "Vocabulary of the tiny model's tokenizer, before fixed phrases.", least=1, group="Model"
    )
    context_length: int = setting(
        2048, "Longest conversation of the tiny model, in tokens.", least=1, group="Model"
    )
    max_length: int | None = setting(
        1024,
        "Longest demonstration, in tokens; longer ones are left out. Model tiny: context_length.",
        least=1,
        library=True,
        group=_DATA,
    )
    demonstrations: str | None = setting(
        None,
        "Learn from trajectories in AgentGym's format instead of an expert's: a file, a folder or a hub id, "
        "such as AgentGym/AgentTraj-L. Their instructions are replaced by those of prompt.",
        group=_DATA,
    )
    trajectories: str = setting(
        "",
        "Learn from the policy's own trajectories (made by rlprm collect) instead of an expert's: all of "
        "them, in the very tokens that were sampled.",
        group=_DATA,
    )
    only_successes: bool = setting(True, "Of trajectories, learn the successes alone.", group=_DATA)
    held_out_fraction: float = setting(
        0.0,
        "Share of the trajectories' tasks left out: those that train-prm holds out with this share and seed.",
        least=0, below=1, group=_DATA,
    )  # fmt: skip
    epochs_of: str = setting(
        "learned",
        "What num_train_epochs passes over: the trajectories that are learned, or all that are given. With "
        "given, a clone of the successes takes as many optimiser steps as a PRM.",
        choices=("learned", "given"), group=_DATA,
    )  # fmt: skip
    first_task: int = setting(
        0, "First task of the train split to demonstrate; or first trajectory given.", least=0, group=_DATA
    )
    num_demonstrations: int = setting(
        2000, "Number of tasks to demonstrate; or of trajectories to learn.", least=1, group=_DATA
    )
    expert_thoughts: bool = setting(
        False,
        "The expert writes a short thought before each action, in an action_format that has a place for one "
        "(react, react_lenient) and an environment that defines explain (textcraft).",
        group=_DATA,
    )
    learn_observations: float = setting(
        0.0,
        "Share of the environment's tokens (drawn at random) to learn to predict, beside all tokens of "
        "actions: teaches a model from scratch to read, and what actions lead to.",
        least=0,
        most=1,
        group=_DATA,
    )
    workers: int = setting(
        0, "Processes for the expert; 0: one per core, or fewer if there is less work.", least=0, group=_DATA
    )
    learning_rate: float = setting(
        2e-5, "Step size at its highest.", least=0, library=True, group="Optimisation"
    )
    logging_steps: float = setting(
        10, "Steps between lines of the log.", above=0, library=True,
        group="Evaluation, logging and checkpoints",
    )  # fmt: skip
    output_dir: str = setting("runs/sft", "Where the policy goes.", library=True, group=_DATA)

    def __post_init__(self) -> None:
        """Check the settings one by one, then those that must agree.

        Raises:
            ConfigError: naming the setting, what was received and what is allowed.
        """
        super().__post_init__()
        if self.trajectories and self.demonstrations is not None:
            raise ConfigError("trajectories: got a folder beside demonstrations, allowed: one of the two")
        if self.trajectories and self.model == "tiny":
            raise ConfigError("model: got tiny, allowed with trajectories: a folder or hub id")
        if self.expert_thoughts and self.action_format not in THOUGHT_FORMATS:
            raise ConfigError(
                f"expert_thoughts: got true with action_format {self.action_format}, allowed: with "
                f"{' or '.join(THOUGHT_FORMATS)}, which have a place for a thought"
            )
        if self.model == "tiny":
            if self.lora_r:
                raise ConfigError(
                    f"lora_r: got {self.lora_r}, allowed: 0 for model tiny, which has learned nothing yet"
                )
            self.max_length = self.context_length

    def unused(self) -> dict[str, str]:
        """Return settings of the tiny model if another is trained, and of the expert if data is given."""
        found = super().unused()
        if self.model != "tiny":
            found |= dict.fromkeys(("size", "vocab_size", "context_length"), f"model {self.model}")
        else:
            found |= {"max_length": "model tiny"}
        if self.demonstrations is not None:
            found |= dict.fromkeys(("workers", "expert_thoughts"), "demonstrations is set")
        if self.trajectories:
            found |= dict.fromkeys(
                ("first_task", "num_demonstrations", "workers", "expert_thoughts"), "trajectories is set"
            )
            if self.max_steps > 0:
                found |= {"epochs_of": "max_steps above 0"}
        else:
            found |= dict.fromkeys(("only_successes", "held_out_fraction", "epochs_of"), "no trajectories")
        return found


@dataclass
class CollectConfig(PolicyConfig):
    """Settings of ``rlprm collect``."""

    STAGE: ClassVar[str] = "collect"

    split: str = setting("train", "Task list.", choices=[split.value for split in Split], group=_DATA)
    first_task: int = setting(0, "First task of the split.", least=0, group=_DATA)
    num_tasks: int = setting(256, "Number of tasks.", least=1, group=_DATA)
    samples_per_task: int = setting(16, "Trajectories per task (the paper's N_TD).", least=1, group=_DATA)
    output_dir: str = setting("runs/trajectories", "Where the trajectories go.", group=_DATA)


@dataclass
class EstimateConfig(PolicyConfig):
    """Settings of ``rlprm estimate``."""

    STAGE: ClassVar[str] = "estimate"

    trajectories: str = setting(
        "", "Folder of trajectories to label (made by rlprm collect).", required=True, group=_DATA
    )
    num_tasks: int | None = setting(None, "Label the first tasks only; all if unset.", least=1, group=_DATA)
    samples_per_task: int | None = setting(
        None, "Label the first samples of a task only; all if unset.", least=1, group=_DATA
    )
    rollouts: int = setting(8, "Rollouts of each state.", least=1, group=_DATA)
    outcome: str = setting(
        "success", "What soft labels are made of: success (0 or 1) or score (graded).", choices=_OUTCOMES,
        group=_DATA,
    )  # fmt: skip
    output_dir: str = setting("runs/estimates", "Where estimates and labels go.", group=_DATA)

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ConfigError: naming the setting, what was received and what is allowed.
        """
        super().__post_init__()
        if self.temperature == 0:
            raise ConfigError("temperature: got 0, allowed: above 0 (all rollouts of a state would be one)")


@dataclass
class LabelConfig(LoadingConfig):
    """Settings of ``rlprm label``."""

    STAGE: ClassVar[str] = "label"

    trajectories: str = setting("", "Folder of trajectories (made by rlprm collect).", required=True)
    label_estimator: str = setting(
        "returns",
        "Label estimator: returns, outcome, td_gae (needs model).",
        family="label estimator",
        kwargs="label_estimator_kwargs",
    )
    label_estimator_kwargs: dict[str, Any] = setting(
        {}, "Settings of the estimator, e.g. label_estimator_kwargs.lam."
    )
    model: str = setting("", "PRM whose values TD-GAE labels are made of.")
    outcome: str = setting(
        "success", "What labels are made of: success (0 or 1) or score (graded).", choices=_OUTCOMES
    )
    output: str = setting("runs/labels.jsonl", "File the labels go to, one trajectory a line.")

    def __post_init__(self) -> None:
        """Check the settings one by one, then those that must agree.

        Raises:
            ConfigError: naming the setting, what was received and what is allowed.
        """
        super().__post_init__()
        from rlprm import labels  # imports torch: after everything that is checked without

        labels.check_settings(self.label_estimator, self.label_estimator_kwargs)
        if labels.load(self.label_estimator).NEEDS_VALUES and not self.model:
            raise ConfigError(f"the estimator {self.label_estimator} needs values: name a PRM with --model")

    def unused(self) -> dict[str, str]:
        """Return the model if the estimator needs no values."""
        from rlprm import labels

        needed = labels.load(self.label_estimator).NEEDS_VALUES
        return {} if needed else {"model": f"label_estimator {self.label_estimator}"}


@dataclass
class ProbeActionsConfig(PolicyConfig):
    """Settings of ``rlprm probe-actions``."""

    STAGE: ClassVar[str] = "probe-actions"

    trajectories: str = setting(
        "", "Folder of trajectories whose states are probed (made by rlprm collect).", required=True,
        group=_DATA,
    )  # fmt: skip
    num_states: int = setting(200, "States to probe, at most one of each trajectory.", least=1, group=_DATA)
    samples_per_state: int = setting(
        16, "Actions sampled in each state; equal ones are merged.", least=2, group=_DATA
    )
    actions_per_state: int = setting(
        4, "Different actions kept of them, the most frequent ones.", least=2, group=_DATA
    )
    rollouts: int = setting(32, "Rollouts that estimate an action's value.", least=4, group=_DATA)
    output_dir: str = setting("runs/action-probe", "Where the probe goes.", group=_DATA)

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ConfigError: naming the setting, what was received and what is allowed.
        """
        super().__post_init__()
        if self.temperature == 0:
            raise ConfigError("temperature: got 0, allowed: above 0 (all actions of a state would be one)")


@dataclass
class ExportConfig(Settings):
    """Settings of ``rlprm export``."""

    STAGE: ClassVar[str] = "export"

    trajectories: str = setting("", "Folder of trajectories (made by rlprm collect).", required=True)
    only_successes: bool = setting(True, "Leave out trajectories without success.")
    output: str = setting("runs/export.json", "File they go to, a JSON list with a trajectory a line.")


@dataclass
class QuickstartConfig(Settings):
    """Settings of ``rlprm quickstart``; everything else stands in the recipes."""

    STAGE: ClassVar[str] = "quickstart"

    recipes: str = setting(
        "recipes/babyai", "Folder of the recipes NAME_tiny.yaml: a path, or a shipped one.", required=True
    )
    output_dir: str = setting("runs/quickstart", "Where everything goes: the root of all recipes.")
    seed: int = setting(0, "Seed of all stages.", least=0)
    pretrain: dict[str, Any] = setting({}, "Changes to pretrain_tiny.yaml, e.g. --pretrain.size xs.")
    sft: dict[str, Any] = setting({}, "Changes to sft_tiny.yaml, e.g. --sft.num_demonstrations 200.")
    collect: dict[str, Any] = setting({}, "Changes to collect_tiny.yaml, e.g. --collect.num_tasks 64.")
    train_prm: dict[str, Any] = setting({}, "Changes to train_prm_tiny.yaml, e.g. --train_prm.beta 0.")
    train_orm: dict[str, Any] = setting({}, "Changes to train_orm_tiny.yaml.")
    clone: dict[str, Any] = setting({}, "Changes to clone_tiny.yaml.")
    evaluate: dict[str, Any] = setting({}, "Changes to evaluate_tiny.yaml, e.g. --evaluate.num_tasks 16.")
    train_rl: dict[str, Any] = setting({}, "Changes to train_rl_tiny.yaml, e.g. --train_rl.iterations 2.")

    def __post_init__(self) -> None:
        """Check the settings; refuse a folder without recipes.

        Raises:
            ArtifactError: if there are none.
        """
        super().__post_init__()
        folder = find_folder(self.recipes, RECIPES)
        names = [f"{name}_tiny.yaml" for name in QUICKSTART_RECIPES]
        missing = [name for name in names if not (folder and (folder / name).exists())]
        if missing:
            raise ArtifactError(
                f"no recipes at {self.recipes!r} (expected {', '.join(missing)} there); "
                "rlprm recipes lists the shipped ones"
            )
