"""Functions shared by the stages that train with a Hugging Face trainer."""

from __future__ import annotations

import dataclasses
import gc
import json
import logging
import math
import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from rlprm.errors import ConfigError, TrainingError, refuse_other_settings
from rlprm.models import zero
from rlprm.models.precision import computes_in_bfloat16
from rlprm.runtime import tracking
from rlprm.runtime.files import read_json, write_json
from rlprm.runtime.parsing.renames import current_settings
from rlprm.runtime.processes import launched_count
from rlprm.runtime.settings import Settings, declarations, own_settings
from rlprm.runtime.tuning import OptimisationConfig

log = logging.getLogger(__name__)
_Arguments = TypeVar("_Arguments", bound=TrainingArguments)
_RUN = "run.json"
"""Settings of the run whose checkpoints are in the folder."""
_OPTIMISATION = (
    "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm", "num_train_epochs",
    "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "optim", "bf16", "seed",
)  # fmt: skip
_SELDOM_SET = (
    "adam_beta1", "adam_beta2", "adam_epsilon", "optim_args", "optim_target_modules", "lr_scheduler_kwargs",
    "warmup_ratio", "fp16", "tf32", "data_seed", "label_smoothing_factor", "neftune_noise_alpha",
    "average_tokens_across_devices", "train_sampling_strategy", "group_by_length", "dataloader_drop_last",
    "packing", "packing_strategy", "padding_free", "loss_type",
)  # fmt: skip
"""Those of optimisation that a record names only where they are not the library's own."""


def trainer_arguments(
    kind: type[_Arguments], config: OptimisationConfig, model: str | None, **own: Any
) -> _Arguments:
    """Build the arguments of a library's trainer, with what depends on the machine settled.

    Args:
        kind: the library's class.
        config: of a stage; its settings that the library has are passed on.
        model: folder or hub id that training starts from; None for a small model that is yet to be made.
        own: what the stage decides itself.

    Raises:
        ConfigError: for a value that the library refuses.
    """
    given = {name: getattr(config, name) for name, d in declarations(config).items() if d.library}
    given |= given.pop("trainer_kwargs") | own
    try:
        arguments: _Arguments = kind(**_settled(given, model))
    except (TypeError, ValueError, ImportError) as error:
        raise ConfigError(" ".join(str(error).split())) from error
    return arguments


def _settled(given: dict[str, Any], model: str | None) -> dict[str, Any]:
    """Settle what depends on the machine if the user left it open."""
    bf16, fp16 = given.get("bf16"), given.get("fp16", False)
    if bf16 is None:
        bf16 = not fp16 and computes_in_bfloat16(model)
    # Without a GPU this must be set, or processes launched together would each train apart.
    on_cpu = given.get("use_cpu", False) or not torch.accelerator.is_available()
    zero.prepare(on_cpu=on_cpu)
    tracking.prepare(given.get("report_to"))
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    given |= {
        "bf16": bf16,
        "use_cpu": on_cpu,
        "dataloader_pin_memory": given.get("dataloader_pin_memory", True) and torch.cuda.is_available(),
        # Left on, a NaN would be replaced by the mean of the losses before it, and never be seen.
        "logging_nan_inf_filter": False,
    }
    if given.get("ddp_find_unused_parameters") is None:
        # Every trained weight is used in every forward, so DDP need not search for unused ones.
        given["ddp_find_unused_parameters"] = False
    checkpointing = given.pop("gradient_checkpointing", None) or None
    # Versions that have a new name for it warn of the old one, which is the one they all know.
    new_name = "activation_checkpointing" in {field.name for field in dataclasses.fields(TrainingArguments)}
    if new_name and given.get("activation_checkpointing") is None:
        given["activation_checkpointing"] = checkpointing
        checkpointing = None
    return {**given, "gradient_checkpointing": checkpointing}


@contextmanager
def nested_training() -> Iterator[None]:
    """Train with a library's trainer inside a run that has an Accelerator of its own.

    The trainer resets what all Accelerators of a process share: the kind of launch, the precision, the
    plugin of DeepSpeed, the counters of gradient accumulation. The trainer also seeds all random
    generators. After the block everything is as before. The processes and their group stay.
    """
    shared = [kind._shared_state for kind in (PartialState, AcceleratorState, GradientState)]
    before = [dict(state) for state in shared]
    environment, random_states, zero_config = dict(os.environ), _random_states(), zero.launch_config()
    for state in shared:
        state.clear()
    try:
        yield
    finally:
        gc.collect()  # trainers lie in cycles of references, and hold memory of the accelerator
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        for state, old in zip(shared, before, strict=True):
            state.clear()
            state.update(old)
        os.environ.clear()
        os.environ.update(environment)
        zero.set_launch_config(zero_config)
        _set_random_states(random_states)


def _random_states() -> tuple[Any, Any, Tensor, list[Tensor]]:
    on_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), on_gpus


def _set_random_states(states: tuple[Any, Any, Tensor, list[Tensor]]) -> None:
    of_python, of_numpy, of_torch, on_gpus = states
    random.setstate(of_python)
    np.random.set_state(of_numpy)
    torch.set_rng_state(of_torch)
    if on_gpus:
        torch.cuda.set_rng_state_all(on_gpus)


def stage_record(config: OptimisationConfig, arguments: TrainingArguments) -> dict[str, Any]:
    """Return the settings that determine what a training stage produces, except where it puts it.

    Args:
        config: of the stage.
        arguments: of the library's trainer, made of it.
    """
    record = own_settings(config)
    record.update({name: getattr(arguments, name) for name in _OPTIMISATION})
    known = {field.name: field for field in dataclasses.fields(arguments)}
    record.update(
        (name, getattr(arguments, name))
        for name in _SELDOM_SET
        if name in known and getattr(arguments, name) != known[name].default
    )
    return {name: str(value) if isinstance(value, Enum) else value for name, value in record.items()}


def check_world_size(arguments: TrainingArguments) -> None:
    """Refuse processes that were launched together but would each train on all of the data, apart.

    One process that sees several GPUs uses the first: the trainer would spread every batch over all
    (``DataParallel``): a batch several times the requested size, without mixed precision.

    Raises:
        TrainingError: if the launcher started another number of processes than the trainer sees.
    """
    launched = launched_count()
    if (seen := arguments.n_gpu) > 1:
        arguments._n_gpu = 1
        log.warning("one of %d GPUs is used; accelerate launch --num_processes %d ... takes all", seen, seen)
    if launched != arguments.world_size:
        raise TrainingError(
            f"{launched} processes were launched, but the trainer sees {arguments.world_size}; each would "
            "train alone (on CPUs, set use_cpu and create no Accelerator before the configuration is read)"
        )


def last_checkpoint(output_dir: str, record: Mapping[str, Any]) -> str | None:
    """Return the newest checkpoint a killed run left in its folder.

    Args:
        output_dir: the run's folder.
        record: settings of this run. They are kept beside the checkpoints, so that no run goes on from a
            checkpoint of other settings; under DeepSpeed the number of processes is one of them.

    Raises:
        MismatchError: if the checkpoint was made with other settings.
    """
    folder = Path(output_dir)
    found = get_last_checkpoint(output_dir) if folder.is_dir() else None
    wanted = json.loads(json.dumps({**record, **zero.partitioning()}))
    if found is not None and (folder / _RUN).exists():
        refuse_other_settings(
            f"{found} was made", current_settings("train-prm", read_json(folder / _RUN)), wanted
        )
    write_json(folder / _RUN, wanted)
    return found


def refuse_non_finite(name: str, value: float, arguments: TrainingArguments, step: int) -> None:
    """Stop where a loss, a gradient norm or a value is NaN or infinite.

    Raises:
        TrainingError: naming it, the step and what to try.
    """
    if not math.isfinite(value):
        raise TrainingError(
            f"{name} is {value} at step {step}: lower learning_rate (now {arguments.learning_rate:g}) "
            "or check the data; nothing was saved"
        )


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
            if name in ("loss", "grad_norm", "train_loss", "eval_loss"):
                refuse_non_finite(name, float(value), args, state.global_step)


class LogSettings(TrainerCallback):
    """Add the stage's own settings to the run that the library's trainer started at the tracker."""

    def __init__(self, config: Settings) -> None:
        self.settings = own_settings(config)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Send them to W&B, if it runs; called after the trackers have been started."""
        if state.is_world_process_zero and "wandb" in (args.report_to or []):
            import wandb

            if wandb.run is not None:
                wandb.config.update(self.settings, allow_val_change=True)
