"""From the scalar head's raw output (logit) to a value: the one place that knows how."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from rlprm.errors import ConfigError

__all__ = ["ACTIVATIONS", "activate", "check_activation"]


def _identity(logits: Tensor) -> Tensor:
    return logits


ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {"identity": _identity, "sigmoid": torch.sigmoid}
)
"""``identity``: the logit is the value. ``sigmoid``: the value is a probability."""


def check_activation(activation: str) -> None:
    """Refuse a name that is not in ``ACTIVATIONS``."""
    if activation not in ACTIVATIONS:
        raise ConfigError(f"unknown activation {activation!r}; known: {', '.join(ACTIVATIONS)}")


def activate(logits: Tensor, activation: str) -> Tensor:
    """Apply a named activation to the head's output; any shape, the dtype is kept.

    Raises:
        ConfigError: for an unknown name; lists those there are.
    """
    check_activation(activation)
    return ACTIVATIONS[activation](logits)
