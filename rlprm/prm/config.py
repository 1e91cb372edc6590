"""Settings of the PRM stage."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from transformers import TrainingArguments

from rlprm import labels
from rlprm.components import canonical
from rlprm.errors import ConfigError
from rlprm.functional.losses import check_loss
from rlprm.models.heads import HEADS
from rlprm.models.lora import TuningConfig
from rlprm.models.value_positions import VALUE_READS
from rlprm.runtime.config import setting
from rlprm.training import require_training, settle_device


@dataclass
class PRMConfig(TuningConfig, TrainingArguments):
    """Settings of ``rlprm train-prm``; everything of ``transformers.TrainingArguments`` is available too."""

    trajectories: str = setting("", "Folder of trajectories to learn from (made by rlprm collect).")
    model: str = setting("", "Weights to start from: a policy or a base model, folder or hub id.")
    label_estimator: str = setting(
        "td_gae", "Label estimator: td_gae (AgentPRM), outcome (ORM), returns, ..."
    )
    label_estimator_kwargs: dict[str, Any] = setting(
        {}, "Settings of the estimator, e.g. label_estimator_kwargs.lam."
    )
    label_file: str = setting(
        "", "Stored step labels to learn from instead of an estimator's (made by rlprm estimate or label)."
    )
    beta: float = setting(1.0, "Weight of the progress loss.")
    loss: str = setting("mse", "Promise loss: mse (the paper's) or bce (cross-entropy on soft targets).")
    activation: str = setting("identity", "From head output to value: identity or sigmoid.")
    relabel: str = setting("epoch", "When value-based labels are made anew: epoch (the paper's) or batch.")
    cold_start_epochs: int = setting(1, "First epochs that learn returns only, before values mean anything.")
    value_reads: str = setting(
        "action", "Where values are read: action (the paper's), or state_and_action (before each, too)."
    )
    head: str = setting(
        "scalar",
        "What judges an action: scalar (a number read at its last token, the paper's), or likelihood (how "
        "probable the model finds its words; wants a model that writes such actions: the policy).",
    )
    lm_scale: float = setting(0.1, "With head lm: what a factor of e in probability is worth, in outcomes.")
    last_step_weight: float = setting(1.0, "Weight of the last step's promise target.")
    outcome: str = setting("success", "What labels are made of: success (0 or 1) or score (graded).")
    held_out_fraction: float = setting(0.1, "Share of the tasks kept for evaluation.")
    output_dir: str = setting("runs/prm", "Where the PRM goes.")
    bf16: bool | None = setting(None, "Train in bfloat16; decided by the hardware if unset.")
    save_strategy: str = setting("no", "When to save resumable checkpoints: no, steps or epoch.")
    eval_strategy: str = setting("epoch", "When to evaluate on held-out tasks: no, steps or epoch.")
    report_to: str = setting("none", "Tracker: none, wandb, tensorboard.")
    remove_unused_columns: bool = setting(False, "Must stay false: rows are indices of trajectories.")

    def __post_init__(self) -> None:
        """Check our own settings, settle the hardware, then let transformers validate.

        Raises:
            ConfigError: naming the setting, what was received and what is allowed.
        """
        for name in ("trajectories", "model"):
            if not getattr(self, name):
                raise ConfigError(f"{name}: nothing given; set it in the recipe or with --{name}")
        check_loss(self.loss, self.activation)
        self.label_estimator = canonical(self.label_estimator)
        labels.check_settings(self.label_estimator, self.label_estimator_kwargs)
        _allow("relabel", self.relabel, ("epoch", "batch"))
        _allow("value_reads", self.value_reads, VALUE_READS)
        _allow("head", self.head, HEADS)
        if not 0 < self.lm_scale < math.inf:
            raise ConfigError(f"lm_scale: got {self.lm_scale}, allowed: above 0")
        _allow("outcome", self.outcome, ("success", "score"))
        if not 0.0 < self.held_out_fraction < 1.0:
            raise ConfigError(f"held_out_fraction: got {self.held_out_fraction}, allowed: between 0 and 1")
        for name in ("beta", "cold_start_epochs", "last_step_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name}: got {getattr(self, name)}, allowed: 0 or more")
        require_training(self)
        settle_device(self)
        super().__post_init__()


def _allow(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name}: got {value!r}, allowed: {', '.join(allowed)}")
