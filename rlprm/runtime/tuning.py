"""Settings that stages with models share: how these are loaded, which weights are trained, and how.

Without torch; ``rlprm.models`` and ``rlprm.training`` act on them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, ClassVar

from rlprm.errors import ConfigError
from rlprm.runtime.hub_names import with_revision
from rlprm.runtime.settings import Settings, setting
from rlprm.runtime.tracking import TRACKERS, require_tracker

__all__ = ["ALL_LINEAR", "LR_SCHEDULERS", "LoadingConfig", "OptimisationConfig", "TuningConfig"]

log = logging.getLogger(__name__)
ALL_LINEAR = "all-linear"
LR_SCHEDULERS = (
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup",
    "inverse_sqrt", "reduce_lr_on_plateau", "cosine_with_min_lr", "cosine_warmup_with_min_lr",
    "warmup_stable_decay", "greedy",
)  # fmt: skip
"""Learning-rate schedules of transformers."""
_WHEN = ("no", "steps", "epoch")
_LOADING = "Loading of models"
_WEIGHTS = "Weights that are trained"
_OPTIMISATION = "Optimisation"
_KEEPING = "Evaluation, logging and checkpoints"


@dataclass
class LoadingConfig(Settings):
    """Settings of every stage that loads models."""

    MODEL: ClassVar[str] = "model"
    """Name of the setting that ``revision`` belongs to."""

    revision: str | None = setting(
        None,
        "Branch, tag or commit of a model of the hub; elsewhere write organisation/name@revision.",
        group=_LOADING,
        recorded="never",  # the commit is
    )
    attn_implementation: str | None = setting(
        None,
        "How attention is computed: sdpa, eager, flash_attention_2, ...; the library's choice if unset.",
        group=_LOADING,
        recorded="changed",
    )
    trust_remote_code: bool = setting(
        False, "Run Python code that lies beside the weights.", group=_LOADING, recorded="never"
    )

    def __post_init__(self) -> None:
        """Check the settings; put the revision behind the model's hub id, where every use of it finds it.

        Raises:
            ConfigError: naming the setting, what was received and what is allowed.
        """
        super().__post_init__()
        if self.revision is not None:
            setattr(self, self.MODEL, with_revision(getattr(self, self.MODEL), self.revision))
            self.revision = None


@dataclass
class TuningConfig(LoadingConfig):
    """Settings of every stage that trains a model."""

    lora_r: int = setting(0, "Rank of LoRA adapters; 0 trains all weights.", least=0, group=_WEIGHTS)
    lora_alpha: int | None = setting(
        None, "Adapters are scaled by lora_alpha / lora_r; 2 lora_r if unset.", least=1, group=_WEIGHTS
    )
    lora_dropout: float = setting(0.0, "Dropout before adapters.", least=0, below=1, group=_WEIGHTS)
    lora_target_modules: list[str] = setting(
        [ALL_LINEAR],
        "Layers that get adapters, by the ends of their names; all-linear: all but the head.",
        required=True,
        group=_WEIGHTS,
    )
    load_in_4bit: bool = setting(
        False,
        "Keep the weights that LoRA freezes in 4 bits (QLoRA); needs a GPU and bitsandbytes.",
        group=_WEIGHTS,
        recorded="changed",
    )
    dtype: str = setting(
        "auto",
        "Weights in training; auto: float32, or bfloat16 for weights that LoRA freezes if bf16 is on.",
        choices=("auto", "float32", "bfloat16"),
        group=_WEIGHTS,
    )

    def __post_init__(self) -> None:
        """Check the settings; warn of trained weights in bfloat16.

        Raises:
            ConfigError: naming the setting, what was received and what is allowed.
        """
        super().__post_init__()
        if self.load_in_4bit and not self.lora_r:
            raise ConfigError(
                "load_in_4bit: got true, allowed: with adapters only (lora_r above 0), since weights in 4 "
                "bits cannot be trained"
            )
        if not self.lora_r and self.dtype == "bfloat16":
            log.warning(
                "all weights are trained in bfloat16: updates below 1/256 of a weight are lost; "
                "dtype float32 with bf16 true computes as fast and keeps them"
            )

    def weights_dtype(self, *, bf16: bool | None) -> str:
        """Return the dtype the model is loaded in.

        Weights that are trained stay in float32 (bf16 computes beside them); frozen ones need no more bits
        than the computation has.
        """
        if self.dtype != "auto":
            return self.dtype
        return "bfloat16" if self.lora_r and bf16 else "float32"

    def unused(self) -> dict[str, str]:
        """Return settings of adapters if there are none."""
        names = ("lora_alpha", "lora_dropout", "lora_target_modules")
        return super().unused() | ({} if self.lora_r else dict.fromkeys(names, "lora_r 0"))


@dataclass
class OptimisationConfig(Settings):
    """Settings that stages with a trainer of transformers or TRL pass on to it, under the same names.

    Every other setting of that library is in ``trainer_kwargs``; recipes and command lines may name it like
    one of ours.
    """

    learning_rate: float = setting(
        5e-5, "Step size at its highest.", least=0, library=True, group=_OPTIMISATION
    )
    num_train_epochs: float = setting(
        3.0, "Passes over the data.", above=0, library=True, group=_OPTIMISATION
    )
    max_steps: int = setting(
        -1, "Optimiser steps instead of epochs; -1: num_train_epochs counts.", least=-1, library=True,
        group=_OPTIMISATION,
    )  # fmt: skip
    per_device_train_batch_size: int = setting(
        8, "Rows of a micro-batch, on each device.", least=1, library=True, group=_OPTIMISATION
    )
    gradient_accumulation_steps: int = setting(
        1, "Micro-batches of an optimiser step.", least=1, library=True, group=_OPTIMISATION
    )
    lr_scheduler_type: str = setting(
        "linear", "How the step size changes.", choices=LR_SCHEDULERS, library=True, group=_OPTIMISATION
    )
    warmup_steps: float = setting(
        0, "First steps, in which the step size rises; below 1: a share of all.", least=0, library=True,
        group=_OPTIMISATION,
    )  # fmt: skip
    weight_decay: float = setting(0.0, "Weight decay.", least=0, library=True, group=_OPTIMISATION)
    max_grad_norm: float = setting(
        1.0, "Gradients are scaled down to this norm; 0: never.", least=0, library=True, group=_OPTIMISATION
    )
    bf16: bool | None = setting(
        None, "Compute in bfloat16; decided by the hardware if unset.", library=True, group=_OPTIMISATION
    )
    gradient_checkpointing: bool = setting(
        False, "Compute activations again on the way back: less memory.", library=True, group=_OPTIMISATION
    )
    seed: int = setting(
        0, "Seed of initial weights, order of rows and splits.", least=0, library=True, group=_OPTIMISATION
    )
    per_device_eval_batch_size: int = setting(
        8, "Rows that are read at a time, on each device.", least=1, library=True, group=_KEEPING
    )
    eval_strategy: str = setting(
        "no", "When held-out data is measured.", choices=_WHEN, library=True, group=_KEEPING
    )
    eval_steps: float | None = setting(
        None, "Steps between measurements, with eval_strategy steps.", above=0, library=True, group=_KEEPING
    )
    save_strategy: str = setting(
        "no", "When resumable checkpoints are saved.", choices=(*_WHEN, "best"), library=True, group=_KEEPING
    )
    save_steps: float = setting(
        500, "Steps between checkpoints, with save_strategy steps.", above=0, library=True, group=_KEEPING
    )
    save_total_limit: int | None = setting(
        None, "Newest checkpoints that are kept; all if unset.", least=1, library=True, group=_KEEPING
    )
    logging_steps: float = setting(
        500, "Steps between lines of the log.", above=0, library=True, group=_KEEPING
    )
    disable_tqdm: bool | None = setting(None, "Show no progress bar.", library=True, group=_KEEPING)
    report_to: str = setting("none", "Tracker of metrics.", choices=TRACKERS, library=True, group=_KEEPING)
    trainer_kwargs: dict[str, Any] = setting(
        {}, "Other settings of the library's trainer, by name (--help-all).", library=True, group=_KEEPING
    )

    def __post_init__(self) -> None:
        """Check the settings; refuse a tracker that is not installed.

        Raises:
            ConfigError: naming the setting, what was received and what is allowed.
        """
        super().__post_init__()
        require_tracker(self.report_to)

    def unused(self) -> dict[str, str]:
        """Return settings of checkpoints and measurements that are never made."""
        found = super().unused()
        if self.save_strategy == "no":
            found |= dict.fromkeys(("save_steps", "save_total_limit"), "save_strategy no")
        if self.eval_strategy == "no":
            found |= {"eval_steps": "eval_strategy no"}
        if self.max_steps > 0:
            found |= {"num_train_epochs": "max_steps above 0"}
        return found
