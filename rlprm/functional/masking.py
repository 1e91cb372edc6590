"""Which entries of a right-padded batch exist."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["length_mask"]


def length_mask(lengths_B: Tensor, width: int) -> Tensor:
    """Return a boolean (B, width) mask: True in the first ``lengths_B[b]`` columns of row b.

    Steps: ``length_mask(lengths_B, T)``; values, ``v_0`` included:
    ``length_mask(lengths_B + 1, T + 1)``.
    """
    return torch.arange(width, device=lengths_B.device) < lengths_B.unsqueeze(1)
