"""The model under training, its optimiser and the processes that share it, behind one protocol.

* ``base``: the protocol ``Engine``
* ``accelerated``: what both engines share
* ``plain``: one process, or several under DDP
* ``deepspeed``: DeepSpeed's ZeRO
"""

from __future__ import annotations

import os

import torch
from accelerate import Accelerator

from rlprm.errors import ConfigError, TrainingError
from rlprm.models import zero
from rlprm.rl.actor_critic import ActorCritic
from rlprm.rl.config import RLConfig
from rlprm.rl.engine.base import Engine, GradientNorms
from rlprm.rl.engine.deepspeed import DeepSpeedEngine
from rlprm.rl.engine.plain import PlainEngine
from rlprm.runtime.accelerate import FSDP_REFUSED
from rlprm.runtime.processes import TIMEOUT

__all__ = ["Engine", "GradientNorms", "make_engine", "start_accelerator"]


def start_accelerator(*, bf16: bool) -> Accelerator:
    """Meet the other processes of the launch and take this process's device.

    Args:
        bf16: whether training computes in bfloat16.

    Raises:
        ConfigError: for a launch with FSDP.
        TrainingError: if the launched processes do not see one another: each would train by itself.
    """
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        raise ConfigError(FSDP_REFUSED)
    accelerator = zero.start_accelerator(
        on_cpu=not torch.accelerator.is_available(),
        mixed_precision="bf16" if bf16 else "no",
        timeout=TIMEOUT,
    )
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched != accelerator.num_processes:
        raise TrainingError(
            f"{launched} processes were launched, but this one sees {accelerator.num_processes}; start them "
            "with accelerate launch (on CPUs with torchrun, or one of ds_configs/cpu_*.yaml)"
        )
    return accelerator


def make_engine(model: ActorCritic, config: RLConfig, accelerator: Accelerator) -> Engine:
    """Return the engine of this launch, the one choice that depends on DeepSpeed.

    Args:
        model: with all weights (split under ZeRO-3); the engine spreads it over the processes.
        config: of the run.
        accelerator: of this process.
    """
    uses_deepspeed = accelerator.state.deepspeed_plugin is not None
    return (DeepSpeedEngine if uses_deepspeed else PlainEngine)(model, config, accelerator)
