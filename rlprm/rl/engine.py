"""What differs between plain processes and DeepSpeed's ZeRO, in one place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from rlprm.errors import TrainingError
from rlprm.models import zero
from rlprm.runtime.processes import TIMEOUT

__all__ = ["reset_policy_state", "settle_engine", "start_accelerator", "with_full_weights"]


def start_accelerator(*, bf16: bool | None) -> Accelerator:
    """Meet the other processes of the launch and take the device that is this one's.

    Raises:
        TrainingError: if processes were launched that do not find one another: each would train alone.
    """
    if bf16 is None:
        bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
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


def settle_engine(accelerator: Accelerator, *, max_grad_norm: float) -> None:
    """Tell DeepSpeed, if it is used, what it cannot know: micro-batches and steps are ours to count."""
    plugin = accelerator.state.deepspeed_plugin
    if plugin is not None:
        plugin.deepspeed_config.update(
            train_micro_batch_size_per_gpu=1, gradient_accumulation_steps=1, gradient_clipping=max_grad_norm
        )


def reset_policy_state(optimizer: Any) -> None:
    """Let Adam know nothing of the policy's weights, as before its first step.

    Args:
        optimizer: as accelerate has wrapped it, its groups told apart by ``of_policy``.
    """
    for state in _states_of_policy(optimizer):
        for name, kept in state.items():
            if isinstance(kept, Tensor):
                kept.zero_()
            elif name == "step":  # DeepSpeed's Adam for CPUs counts in a number
                state[name] = 0


def _states_of_policy(optimizer: Any) -> Iterator[dict[str, Any]]:
    """Yield what the optimiser keeps of the policy's weights, or of this process's share of them."""
    inner = optimizer.optimizer  # in accelerate's wrapper
    plain = getattr(inner, "optimizer", inner)  # in ZeRO's
    pairs = [(weight, group) for group in plain.param_groups for weight in group["params"]]
    if group_of := getattr(inner, "sub_group_to_group_id", None):
        # ZeRO-3 puts weights into their groups for the time of a step only.
        flat = inner.fp32_partitioned_groups_flat
        pairs = [(weight, plain.param_groups[group_of[number]]) for number, weight in enumerate(flat)]
    for weight, group in pairs:
        if group["of_policy"] and weight in plain.state:
            yield plain.state[weight]


@contextmanager
def with_full_weights(model: Any, accelerator: Accelerator) -> Iterator[Any]:
    """Yield the module itself, its policy with all weights in place in every process.

    Under ZeRO-3 they are gathered once (a critic and a reference stay split: nobody acts with them), and
    the hooks that would part them again after every forward are off meanwhile: rollouts are ragged, and a
    collective inside them would wait forever.
    """
    whole = accelerator.unwrap_model(model)
    if not any(map(zero.is_split, whole.policy.parameters())):
        yield whole
        return
    from trl.models.utils import add_hooks, remove_hooks

    with zero.with_full_weights(whole.policy.parameters()):
        remove_hooks(model)
        try:
            yield whole
        finally:
            add_hooks(model)
