"""Access to weights under DeepSpeed's ZeRO (arXiv 1910.02054), outside a training step.

Stages 1 and 2 split the optimiser's state (stage 2: gradients, too) over the processes, and each process has
all weights. Stage 3 splits the weights as well: outside a forward pass a parameter is empty, and reading
it is a collective operation, which every process must call. Without DeepSpeed the functions
of this module act on plain weights.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import GradientAccumulationPlugin
from torch import Tensor, nn
from transformers.integrations import deepspeed as integration

__all__ = [
    "full_weights",
    "is_split",
    "launch_config",
    "loading_unsharded",
    "partitioning",
    "prepare",
    "set_launch_config",
    "size_of",
    "start_accelerator",
    "with_full_weights",
    "zero_stage",
]

_SHARED_MEMORY = "deepspeed_shm_comm"


def prepare(*, on_cpu: bool) -> None:
    """Set DeepSpeed's environment before it is imported and before the processes of a launch connect.

    On CPUs DeepSpeed would compile an extension, which takes minutes and needs a compiler. The extension
    serves inference only; training communicates through gloo.

    Args:
        on_cpu: whether models are trained on CPUs, even on a machine with a GPU.
    """
    if on_cpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # or DeepSpeed logs that there is no GPU
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() != "true":
        return
    # DeepSpeed calls functions under their old names, which torch warns of at every step.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    if on_cpu:
        import deepspeed.ops

        deepspeed.ops.__compatible_ops__[_SHARED_MEMORY] = False


def start_accelerator(*, on_cpu: bool, mixed_precision: str, timeout: timedelta) -> Accelerator:
    """Connect the processes of a launch for training without a Trainer; with DeepSpeed if the launch has it.

    On CPUs ``Accelerator(cpu=True)`` would ignore DeepSpeed, and ``Accelerator()`` the other
    processes, both without a message.

    Args:
        on_cpu: whether models are trained on CPUs.
        mixed_precision: ``"no"`` or ``"bf16"``.
        timeout: how long processes wait for one another.
    """
    prepare(on_cpu=on_cpu)
    PartialState(cpu=on_cpu, timeout=timeout)
    # The caller accumulates micro-batches itself; the launch's value ("auto") is meant for a Trainer.
    accumulation = GradientAccumulationPlugin(num_steps=1)
    return Accelerator(mixed_precision=mixed_precision, gradient_accumulation_plugin=accumulation)


def zero_stage() -> int:
    """Return the stage of ZeRO that models are trained with in this process; 0 without DeepSpeed."""
    config = integration.deepspeed_config()
    return 0 if config is None else int(config["zero_optimization"]["stage"])


def partitioning() -> dict[str, int]:
    """Return the settings of ZeRO that a checkpoint depends on; none without DeepSpeed."""
    stage = zero_stage()
    return {"zero_stage": stage, "processes": int(os.environ.get("WORLD_SIZE", "1"))} if stage else {}


def is_split(parameter: nn.Parameter) -> bool:
    """Whether this process has only a part of a parameter."""
    return hasattr(parameter, "ds_id")


def size_of(parameter: nn.Parameter) -> int:
    """Return the number of elements of a parameter, over all processes."""
    if hasattr(parameter, "quant_state"):  # bitsandbytes packs two weights into a byte
        return 2 * parameter.numel() * parameter.element_size()
    return int(getattr(parameter, "ds_numel", parameter.numel()))


@contextmanager
def with_full_weights(parameters: Iterable[nn.Parameter], *, change: bool = False) -> Iterator[None]:
    """Gather split parameters in every process for the duration of a block, which every process must enter.

    Args:
        parameters: split or not; the others stay as they are.
        change: True if the block writes to the parameters. All processes then keep the values that
            the first process wrote.
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
    """Load models unsplit within a block, even under ZeRO-3.

    Outside such a block, ZeRO-3 needs every process to load the same model at the same time.
    """
    if not integration.is_deepspeed_zero3_enabled():
        yield
        return
    held = launch_config()
    set_launch_config(None)
    try:
        yield
    finally:
        set_launch_config(held)


def launch_config() -> Any:
    """Return the configuration of DeepSpeed by which models are loaded in this process; None without."""
    held = integration._hf_deepspeed_config_weak_ref
    return None if held is None else held()


def set_launch_config(config: Any) -> None:
    """Load models by a configuration of DeepSpeed from now on; by none if it is None."""
    if config is None:
        integration.unset_hf_deepspeed_config()
    else:
        integration.set_hf_deepspeed_config(config)


def full_weights(
    model: nn.Module, *, trained_only: bool = False, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """Return the optimiser's float32 master weights, gathered on the CPU of the first process.

    The bfloat16 weights of the forward pass are rounded copies of them. Every process must call this.

    Args:
        model: the trained model, not the engine around it.
        trained_only: leave out frozen weights.
        dtype: that weights are rounded to, one after the other, so that memory never holds all in float32;
            None leaves them.

    Returns:
        Weights and buffers by their names in the model's state; empty in the other processes.
    """
    is_first = int(os.environ.get("RANK", "0")) == 0
    weights: dict[str, Tensor] = {}
    copies: dict[int, Tensor] = {}  # tied weights have two names
    for name, tensor in model.state_dict(keep_vars=True).items():
        if trained_only and not tensor.requires_grad:
            continue
        if id(tensor) not in copies:
            master = _master(tensor)
            wanted = dtype if master.is_floating_point() else None
            copies[id(tensor)] = master.to("cpu", wanted) if is_first else torch.empty(0)
        weights[name] = copies[id(tensor)]
    return weights if is_first else {}


def _master(tensor: Any) -> Tensor:
    """Return a detached, gathered float32 copy of a weight, or a copy of a buffer."""
    if tensor.requires_grad and (hasattr(tensor, "_hp_mapping") or hasattr(tensor, "_z3_optimizer")):
        from deepspeed.utils import safe_get_full_fp32_param

        master: Tensor = safe_get_full_fp32_param(tensor)
        return master.detach().clone()
    with with_full_weights([tensor]):
        copy: Tensor = tensor.detach().clone()
    return copy.float() if isinstance(tensor, nn.Parameter) and copy.is_floating_point() else copy
