"""Unwrapping a model from its training engine, its compilation and its adapters."""

from __future__ import annotations

from typing import cast

from accelerate.utils import extract_model_from_parallel
from peft import PeftModel
from torch import nn

__all__ = ["unwrapped"]


def unwrapped(model: nn.Module) -> nn.Module:
    """Return a model without the engine, the compilation and the adapters around it."""
    inner = extract_model_from_parallel(model, keep_torch_compile=False)
    return cast(nn.Module, inner.get_base_model()) if isinstance(inner, PeftModel) else cast(nn.Module, inner)
