"""What every stage that trains with a Hugging Face trainer has in common."""

from __future__ import annotations

import math
import os
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from rlprm import tracking
from rlprm.config import own_settings
from rlprm.errors import TrainingError

_OPTIMISATION = (
    "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm", "num_train_epochs",
    "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "optim", "bf16", "seed",
)  # fmt: skip


def stage_record(config: TrainingArguments) -> dict[str, Any]:
    """Return the settings that determine what a training stage produces, except where it puts it."""
    record = own_settings(config)
    record.update({name: getattr(config, name) for name in _OPTIMISATION})
    return {name: str(value) if isinstance(value, Enum) else value for name, value in record.items()}


def settle_device(arguments: TrainingArguments) -> None:
    """Settle what depends on the machine where the user left it open; called before validation."""
    if arguments.bf16 is None:
        arguments.bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported() and not arguments.fp16
    arguments.dataloader_pin_memory = arguments.dataloader_pin_memory and torch.cuda.is_available()
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    tracking.prepare(arguments.report_to)


def last_checkpoint(output_dir: str) -> str | None:
    """Return the newest checkpoint a killed run left in its folder."""
    return get_last_checkpoint(output_dir) if Path(output_dir).is_dir() else None


class StopOnNonFiniteLoss(TrainerCallback):
    """End training with a clear error as soon as a logged loss is NaN or infinite."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Check every logged loss and gradient norm."""
        for name, value in (logs or {}).items():
            if name in ("loss", "grad_norm") and not math.isfinite(float(value)):
                raise TrainingError(
                    f"{name} is {value} at step {state.global_step}: lower learning_rate "
                    f"(now {args.learning_rate:g}) or check the data; nothing was saved"
                )
