"""Settings of the PRM stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rlprm.errors import ConfigError
from rlprm.models.heads import HEADS, LM
from rlprm.models.heads.value_positions import VALUE_READS
from rlprm.policies.chat import ChatConfig
from rlprm.runtime.settings import setting
from rlprm.runtime.tuning import OptimisationConfig, TuningConfig

__all__ = ["PRMConfig"]

_DATA = "Data"
_LABELS = "Labels"
_MODEL = "Model and loss"


@dataclass
class PRMConfig(ChatConfig, TuningConfig, OptimisationConfig):
    """Settings of ``rlprm train-prm``; those of ``transformers.TrainingArguments`` are accepted by name."""

    STAGE: ClassVar[str] = "train-prm"
    LIBRARY: ClassVar[str] = "transformers.TrainingArguments"

    trajectories: str = setting(
        "", "Folder of trajectories to learn from (made by rlprm collect).", required=True, group=_DATA
    )
    held_out_fraction: float = setting(
        0.1, "Share of the tasks kept for evaluation.", above=0, below=1, group=_DATA
    )
    output_dir: str = setting("runs/prm", "Where the PRM goes.", library=True, group=_DATA)
    label_estimator: str = setting(
        "td_gae",
        "Label estimator: td_gae (AgentPRM), outcome (ORM), returns, ...",
        family="label estimator",
        kwargs="label_estimator_kwargs",
        group=_LABELS,
    )
    label_estimator_kwargs: dict[str, Any] = setting(
        {}, "Settings of the estimator, e.g. label_estimator_kwargs.lam.", group=_LABELS
    )
    label_file: str = setting(
        "",
        "Stored step labels to learn from instead of an estimator's (made by rlprm estimate or label).",
        group=_LABELS,
    )
    outcome: str = setting(
        "success", "What labels are made of: success (0 or 1) or score (graded).",
        choices=("success", "score"), group=_LABELS,
    )  # fmt: skip
    relabel: str = setting(
        "epoch", "When value-based labels are made anew: epoch (the paper's) or batch.",
        choices=("epoch", "batch"), group=_LABELS,
    )  # fmt: skip
    cold_start_epochs: float = setting(
        1.0,
        "First epochs, or a part of the first one, that learn returns only, before values mean anything.",
        least=0,
        group=_LABELS,
    )
    model: str = setting(
        "", "Weights to start from: a policy or a base model, folder or hub id.", required=True, group=_MODEL
    )
    head: str = setting(
        "scalar",
        "What values an action: scalar (a number read at its last token, the paper's), or lm (how probable "
        "the model finds its tokens; needs a model that writes such actions: the policy).",
        choices=HEADS,
        group=_MODEL,
    )
    lm_scale: float = setting(
        0.1, "With head lm: the value of a factor of e in probability, in outcomes.", above=0, group=_MODEL
    )
    value_reads: str = setting(
        "action",
        "Where values are read: action (the paper's), or state_and_action (before each action, too).",
        choices=VALUE_READS,
        group=_MODEL,
    )
    beta: float = setting(1.0, "Weight of the progress loss.", least=0, group=_MODEL)
    loss: str = setting(
        "mse", "Promise loss: mse (the paper's) or bce (cross-entropy on soft targets).",
        choices=("mse", "bce"), group=_MODEL,
    )  # fmt: skip
    activation: str = setting(
        "identity", "From head output to value.", choices=("identity", "sigmoid"), group=_MODEL
    )
    last_step_weight: float = setting(1.0, "Weight of the last step's promise target.", least=0, group=_MODEL)
    eval_strategy: str = setting(
        "epoch", "When held-out tasks are measured.", choices=("no", "steps", "epoch"), library=True,
        group="Evaluation, logging and checkpoints",
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Check the settings one by one, then those that must agree.

        Raises:
            ConfigError: naming the setting, what was received and what is allowed.
        """
        super().__post_init__()
        if self.loss == "bce" and self.activation != "sigmoid":
            raise ConfigError(f"activation: got {self.activation!r}, allowed with loss bce: sigmoid")
        from rlprm import labels  # imports torch: after everything that is checked without

        labels.check_settings(self.label_estimator, self.label_estimator_kwargs)

    def unused(self) -> dict[str, str]:
        """Return settings that the chosen head, estimator or label file leaves without effect."""
        from rlprm import labels

        found = super().unused()
        if self.head != LM:
            found |= {"lm_scale": f"head {self.head}"}
        of_values = ("relabel", *(("cold_start_epochs",) if self.cold_start_epochs else ()))
        if self.label_file:
            names = ("label_estimator", "label_estimator_kwargs", *of_values)
            found |= dict.fromkeys(names, "label_file is set")
        elif not labels.load(self.label_estimator).NEEDS_VALUES:
            found |= dict.fromkeys(of_values, f"label_estimator {self.label_estimator}")
        return found
