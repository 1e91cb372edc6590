"""A copy of a policy with adapters, merged, to act with.

A decoded token goes through every adapter by itself, and under autocast every weight is cast again for every
token. The copy has neither. It takes over the weights after each update.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

__all__ = ["can_be_merged", "merge_into", "merged_copy"]

_ADAPTERS = re.compile(r"\.lora_(embedding_)?[AB]\b")
"""Names of the weights of plain adapters."""


def can_be_merged(policy: PeftModel) -> bool:
    """Whether the policy is its base and plain adapters, each beside one weight of its own.

    A quantised or tied weight is none of its own. Beside plain adapters (LoRA, rsLoRA) nothing is trained: no
    bias, no whole layer, no magnitude (DoRA).
    """
    if any(p.requires_grad and not _ADAPTERS.search(n) for n, p in policy.named_parameters()):
        return False
    base: Any = policy.get_base_model()
    embedding = base.get_input_embeddings()
    shared = getattr(embedding, "base_layer", embedding).weight
    output = base.get_output_embeddings()
    is_tied = output is not None and getattr(output, "base_layer", output).weight is shared
    return all(
        weight is not None and weight.is_floating_point() and not (is_tied and weight is shared)
        for weight in (getattr(layer.get_base_layer(), "weight", None) for _, layer in _layers(policy))
    )


def merged_copy(policy: PeftModel, load: Callable[[], PreTrainedModel]) -> PreTrainedModel:
    """Return a copy of a policy without adapters.

    Args:
        policy: with adapters, see :func:`can_be_merged`.
        load: loads the model that the adapters began with, in the dtype to act in.
    """
    copy = load()
    copy.requires_grad_(False)
    base: Any = policy.get_base_model()
    with torch.no_grad():
        for name, parameter in copy.named_parameters():  # the policy's own may be rounded already
            parameter.copy_(_weight(base, name))
    merge_into(copy, policy)
    return copy.eval()


@torch.no_grad()
def merge_into(copy: PreTrainedModel, policy: PeftModel) -> None:
    """Give a copy the adapters' present weights, added in float32 and rounded once."""
    for name, layer in _layers(policy):
        own: Any = copy.get_submodule(name)
        weight = layer.get_base_layer().weight
        # Under autocast the product of the adapters would be rounded, too.
        with torch.autocast(weight.device.type, enabled=False):
            change = sum(layer.get_delta_weight(adapter).float() for adapter in layer.active_adapters)
            own.weight.copy_(weight.float() + change)


def _layers(policy: PeftModel) -> Iterator[tuple[str, Any]]:
    base: Any = policy.get_base_model()
    return ((name, module) for name, module in base.named_modules() if isinstance(module, LoraLayer))


def _weight(base: nn.Module, name: str) -> Tensor:
    path, _, leaf = name.rpartition(".")
    module: Any = base.get_submodule(path)
    found: Tensor = getattr(module.get_base_layer() if isinstance(module, LoraLayer) else module, leaf)
    return found
