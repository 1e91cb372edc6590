"""Checks shared by the tensor functions: they name the offending tensor and its shape."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rlprm.errors import ConfigError


def check_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse a tensor of another shape."""
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {shape}")


def check_matrix(name: str, tensor: Tensor, *, min_columns: int = 0) -> tuple[int, int]:
    """Refuse anything but a floating-point matrix with enough columns; return its shape."""
    if tensor.dim() != 2 or tensor.shape[1] < min_columns:
        wanted = "2 dimensions" + (f" and at least {min_columns} columns" if min_columns else "")
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {wanted}")
    if not tensor.is_floating_point():
        raise ValueError(f"{name} has dtype {tensor.dtype}, expected a floating-point one")
    return tensor.shape[0], tensor.shape[1]


def check_lengths(lengths_B: Tensor, rows: int, columns: int) -> None:
    """Refuse lengths that are not one integer in ``0 ... columns`` per row."""
    check_shape("lengths_B", lengths_B, (rows,))
    if lengths_B.is_floating_point() or lengths_B.is_complex() or lengths_B.dtype == torch.bool:
        raise ValueError(f"lengths_B has dtype {lengths_B.dtype}, expected an integer one")
    if rows == 0:
        return
    low, high = (int(bound) for bound in torch.stack(torch.aminmax(lengths_B)).tolist())
    if low < 0 or high > columns:
        raise ValueError(f"lengths_B spans {low} ... {high}, expected values in 0 ... {columns}")


def check_unit_interval(name: str, value: float) -> float:
    """Refuse a setting that is not a number in [0, 1]."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{name} must be a number in [0, 1], got {value!r}")
    if not (math.isfinite(value) and 0.0 <= value <= 1.0):
        raise ConfigError(f"{name} must lie in [0, 1], got {value!r}")
    return float(value)
