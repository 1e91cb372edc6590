"""Log-probabilities of chosen tokens, and the entropy of the distributions they were chosen from."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rlprm.functional._checks import check_shape

__all__ = ["entropy", "token_logprobs"]


def token_logprobs(logits_NV: Tensor, ids_N: Tensor) -> Tensor:
    """Return ``log softmax(logits)[id]`` in at least float32, (N,).

    As the chosen logit minus the logarithm of the sum of all: nothing of the size of the
    logits is made besides what is needed for the gradient.

    Args:
        logits_NV: next-token logits, already divided by the sampling temperature.
        ids_N: the token chosen at each place.
    """
    check_shape("ids_N", ids_N, tuple(logits_NV.shape[:1]))
    dtype = torch.promote_types(logits_NV.dtype, torch.float32)
    chosen_N = logits_NV.gather(1, ids_N.unsqueeze(1)).squeeze(1)
    return chosen_N.to(dtype) - torch.logsumexp(logits_NV.to(dtype), dim=1)


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
