"""Checks shared by the tensor functions: they name the offending tensor and its shape."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rlprm.errors import ConfigError, DataError
from rlprm.functional.masking import length_mask


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


def check_values(values: Tensor, exists: Tensor, symbol: str, first: int) -> None:
    """Refuse a matrix with a value that is not finite where one exists: a missing score is not 0.

    Args:
        values: (B, columns).
        exists: (B, columns), boolean.
        symbol: what the message calls an entry.
        first: the index of the first column in that notation.

    Raises:
        DataError: naming the first such entry.
    """
    broken = ~values.isfinite() & exists
    if broken.any():
        row, column = (int(index) for index in broken.nonzero()[0])
        raise DataError(
            f"the value {symbol}_{column + first} of trajectory {row} is {float(values[row, column])}"
        )


def check_trajectories(values_BT1: Tensor | None, outcomes_B: Tensor, lengths_B: Tensor) -> int:
    """Refuse a padded batch of trajectories that cannot be, and return T, its width in steps.

    Args:
        values_BT1: ``v_0 ... v_T``, or None; where given, it sets the width.
        outcomes_B: the outcome of each trajectory, in [0, 1].
        lengths_B: number of steps of each trajectory.

    Raises:
        DataError: for an outcome outside [0, 1] or NaN, or a value that is not finite at a read that exists.
        ValueError: for shapes that do not belong together.
    """
    if outcomes_B.dim() != 1 or lengths_B.shape != outcomes_B.shape:
        raise ValueError(
            f"outcomes_B has shape {tuple(outcomes_B.shape)} and lengths_B {tuple(lengths_B.shape)}, "
            "expected (B,) twice"
        )
    rows = len(outcomes_B)
    impossible_B = ~((outcomes_B >= 0) & (outcomes_B <= 1))
    if impossible_B.any():
        row = int(impossible_B.nonzero()[0])
        raise DataError(f"the outcome of trajectory {row} is {float(outcomes_B[row])}, expected 0 ... 1")

    if values_BT1 is None:
        width = max(int(lengths_B.max()), 1) if rows else 1
        check_lengths(lengths_B, rows, width)
        return width
    columns = check_matrix("values_BT1", values_BT1, min_columns=2)[1]
    check_shape("values_BT1", values_BT1, (rows, columns))
    check_lengths(lengths_B, rows, columns - 1)
    check_values(values_BT1, length_mask(lengths_B + 1, columns), "v", 0)
    return columns - 1


def check_number(name: str, value: float, *, above: float = -math.inf) -> float:
    """Refuse a setting that is not a finite number above a bound."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{name} must be a number, got {value!r}")
    if not (math.isfinite(value) and value > above):
        bound = f" above {above:g}" if above > -math.inf else ""
        raise ConfigError(f"{name} must be a finite number{bound}, got {value!r}")
    return float(value)


def check_unit_interval(name: str, value: float) -> float:
    """Refuse a setting that is not a number in [0, 1]."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{name} must be a number in [0, 1], got {value!r}")
    if not (math.isfinite(value) and 0.0 <= value <= 1.0):
        raise ConfigError(f"{name} must lie in [0, 1], got {value!r}")
    return float(value)
