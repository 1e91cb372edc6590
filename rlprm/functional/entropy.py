"""Entropy of next-token distributions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ["entropy"]


def entropy(logits: Tensor, *, chunk: int = 1024) -> Tensor:
    """Return ``H = -Σ_v p_v log p_v`` of ``p = softmax(logits)``, in nats, for each position.

    In float32, ``chunk`` positions at a time; where a gradient is wanted, each chunk is
    computed again on the way back. Beyond the logits themselves, the memory is that
    of one chunk. A logit of -inf is a token that cannot be, and adds nothing.

    Args:
        logits: (..., V), already divided by the sampling temperature.
        chunk: positions at a time.

    Returns:
        Shape (...).
    """
    rows_NV = logits.reshape(-1, logits.shape[-1])
    if logits.requires_grad and torch.is_grad_enabled():
        parts = [
            checkpoint(_entropy, part_NV, use_reentrant=False, preserve_rng_state=False)
            for part_NV in torch.split(rows_NV, chunk)
        ]
    else:
        parts = [_entropy(part_NV) for part_NV in torch.split(rows_NV, chunk)]
    return torch.cat(parts).reshape(logits.shape[:-1])


def _entropy(logits_NV: Tensor) -> Tensor:
    logprobs_NV = torch.log_softmax(logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32)), dim=-1)
    possible_NV = logprobs_NV > -torch.inf
    return -(logprobs_NV.exp() * logprobs_NV.where(possible_NV, 0.0)).sum(dim=-1)
