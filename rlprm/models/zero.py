"""DeepSpeed's ZeRO (arXiv 1910.02054), wherever something other than a training step looks at the weights.

Stages 1 and 2 split the optimiser's state (2: gradients, too) over the processes; the weights are whole
in each. Stage 3 splits the weights as well: outside a forward pass a parameter is empty, and to look at
it is a collective, to be done by every process or by none. Where DeepSpeed is not used, everything here
does the plain thing.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from datetime import timedelta
from typing import Any, cast

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import GradientAccumulationPlugin
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations import deepspeed as integration

__all__ = [
    "full_weights",
    "is_split",
    "loading_unsharded",
    "partitioning",
    "prepare",
    "prepare_frozen",
    "size_of",
    "start_accelerator",
    "with_full_weights",
    "zero_stage",
]

_SHARED_MEMORY = "deepspeed_shm_comm"


def prepare(*, on_cpu: bool) -> None:
    """Settle what DeepSpeed finds when it is imported; to be called before the processes of a launch meet.

    On CPUs it would compile an extension (minutes, and a compiler) for an operation of inference alone;
    gloo carries all that training exchanges.

    Args:
        on_cpu: whether models are to be trained there, be there a GPU or not.
    """
    if on_cpu:
        os.environ.setdefault(
            "DS_ACCELERATOR", "cpu"
        )  # or DeepSpeed looks for a GPU and says that it found none
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() != "true":
        return
    # It calls functions that torch has new names for, at every step.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    if on_cpu:
        import deepspeed.ops

        deepspeed.ops.__compatible_ops__[_SHARED_MEMORY] = False


def start_accelerator(*, on_cpu: bool, mixed_precision: str, timeout: timedelta) -> Accelerator:
    """Meet the other processes of a launch, where no Trainer does it; under DeepSpeed if the launch is.

    On CPUs ``Accelerator(cpu=True)`` would quietly do without DeepSpeed, and ``Accelerator()`` without
    the others.

    Args:
        on_cpu: whether models are to be trained there.
        mixed_precision: ``"no"`` or ``"bf16"``.
        timeout: how long processes wait for one another.
    """
    prepare(on_cpu=on_cpu)
    PartialState(cpu=on_cpu, timeout=timeout)
    # Who has no Trainer counts its micro-batches itself; what the launch says ("auto") is for a Trainer.
    accumulation = GradientAccumulationPlugin(num_steps=1)
    return Accelerator(mixed_precision=mixed_precision, gradient_accumulation_plugin=accumulation)


def zero_stage() -> int:
    """Return the stage of ZeRO that models are trained with in this process; 0 without DeepSpeed."""
    config = integration.deepspeed_config()
    return 0 if config is None else int(config["zero_optimization"]["stage"])


def partitioning() -> dict[str, int]:
    """Return what a checkpoint of a training under ZeRO depends on; nothing without DeepSpeed."""
    stage = zero_stage()
    return {"zero_stage": stage, "processes": int(os.environ.get("WORLD_SIZE", "1"))} if stage else {}


def is_split(parameter: nn.Parameter) -> bool:
    """Whether this process holds a part of a parameter only."""
    return hasattr(parameter, "ds_id")


def size_of(parameter: nn.Parameter) -> int:
    """Return how many numbers a parameter has, over all processes."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


@contextmanager
def with_full_weights(parameters: Iterable[nn.Parameter], *, change: bool = False) -> Iterator[None]:
    """Have parameters whole in every process for a while; to be entered by all of them.

    Args:
        parameters: of any kind; whole ones are left as they are.
        change: whether they are written to. What the first process writes is kept, in all.
    """
    split = [parameter for parameter in parameters if is_split(parameter)]
    if not split:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(split, modifier_rank=0 if change else None):
        yield


@contextmanager
def loading_unsharded() -> Iterator[None]:
    """Make models that are loaded meanwhile whole in this process, under ZeRO-3, too.

    Without it every process must load the same model at the same time.
    """
    if not integration.is_deepspeed_zero3_enabled():
        yield
        return
    held = integration._hf_deepspeed_config_weak_ref()
    integration.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        integration.set_hf_deepspeed_config(held)


def prepare_frozen(model: PreTrainedModel, accelerator: Accelerator) -> nn.Module:
    """Return a second model, which is only read, ready for forward passes.

    Under ZeRO-3 a model that was loaded split stays so: every process must run the same forward passes.
    """
    model.requires_grad_(False).eval()
    if not any(map(is_split, model.parameters())):
        return cast(nn.Module, model.to(accelerator.device))
    import deepspeed

    config = deepcopy(accelerator.state.deepspeed_plugin.deepspeed_config)
    for section in ("optimizer", "scheduler"):
        config.pop(section, None)
    config["zero_optimization"].pop("offload_optimizer", None)
    engine: nn.Module = deepspeed.initialize(model=model, config=config)[0]
    engine.eval()
    return engine


def full_weights(model: nn.Module, *, trained_only: bool = False) -> dict[str, Tensor]:
    """Collect the weights as the optimiser has them: float32, whole, on the CPU of the first process.

    bfloat16 weights that DeepSpeed computes with are roundings of these. To be called in every process.

    Args:
        model: that was trained, not the engine around it.
        trained_only: leave out frozen weights.

    Returns:
        Weights and buffers by their names in the model's state; nothing in the other processes.
    """
    keeps = int(os.environ.get("RANK", "0")) == 0
    found: dict[str, Tensor] = {}
    copies: dict[int, Tensor] = {}  # of weights that go by two names
    for name, tensor in model.state_dict(keep_vars=True).items():
        if trained_only and not tensor.requires_grad:
            continue
        if id(tensor) not in copies:
            whole = _master(tensor)
            copies[id(tensor)] = whole.cpu() if keeps else torch.empty(0)
        found[name] = copies[id(tensor)]
    return found if keeps else {}


def _master(tensor: Any) -> Tensor:
    """Return a detached whole float32 copy of a weight, and a copy of anything else."""
    if tensor.requires_grad and (hasattr(tensor, "_hp_mapping") or hasattr(tensor, "_z3_optimizer")):
        from deepspeed.utils import safe_get_full_fp32_param

        master: Tensor = safe_get_full_fp32_param(tensor)
        return master.detach().clone()
    with with_full_weights([tensor]):
        copy: Tensor = tensor.detach().clone()
    return copy.float() if isinstance(tensor, nn.Parameter) and copy.is_floating_point() else copy
