"""Whether differences of log-probabilities are rounding, or a mistake: the bounds, by precision.

Measured on right ways of decoding against one whole forward (``docs/big_models.md``). In float32 the largest
difference counts. In half precision single numbers differ by more than some mistakes make of them, so the
mean counts. On words that make no text the rounding of a deep model is larger than on its own text. What the
precision alone makes of a model there is therefore measured, and moves the bound.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

__all__ = ["LARGEST_OF_FLOAT32", "MEAN_OF_HALF", "bound_of", "exceeds_rounding"]

_FLOORS = 3.0
"""How many times the noise of the precision a right way may differ."""
_MOST_OF_HALF = 0.25
"""Nats, whatever the noise."""

LARGEST_OF_FLOAT32 = 1e-3
"""Nats."""
MEAN_OF_HALF = 0.05
"""Nats; of bfloat16 and float16."""


def exceeds_rounding(differences: Sequence[float], dtype: torch.dtype, noise: float = 0.0) -> bool:
    """Whether rounding does not explain differences.

    Args:
        differences: of log-probabilities, in nats, none negative; at least one. A number that is not finite
            is no rounding.
        dtype: the lowest precision that was computed in.
        noise: mean difference between two computations that are known to be right, in nats.
    """
    if dtype.itemsize >= 4:
        return not all(difference <= LARGEST_OF_FLOAT32 for difference in differences)
    allowed = min(max(MEAN_OF_HALF, _FLOORS * noise), _MOST_OF_HALF)
    return not sum(differences) / len(differences) <= allowed


def bound_of(dtype: torch.dtype) -> str:
    """Return the bound in words, for messages."""
    return f"{LARGEST_OF_FLOAT32:g} (largest)" if dtype.itemsize >= 4 else f"{MEAN_OF_HALF:g} (mean)"
