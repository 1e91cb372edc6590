"""What every stage that trains with a Hugging Face trainer has in common."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from rlprm.errors import TrainingError

LAPTOP_DEFAULTS: dict[str, Any] = {
    # TRL's configurations switch bfloat16 and checkpointing on; on a CPU both only cost time.
    "bf16": None,
    "gradient_checkpointing": False,
    "report_to": "none",
    "save_strategy": "no",
    "logging_steps": 10,
}


def settle_device(arguments: TrainingArguments) -> None:
    """Decide bfloat16 by the hardware where the user left it open; called before validation."""
    if arguments.bf16 is None:
        arguments.bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported() and not arguments.fp16
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def last_checkpoint(output_dir: str) -> str | None:
    """Return the newest checkpoint a killed run left in its folder."""
    return get_last_checkpoint(output_dir) if Path(output_dir).is_dir() else None


class StopOnNonFiniteLoss(TrainerCallback):  # type: ignore[misc]
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
