"""Log-probabilities of chosen tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from rlprm.functional._checks import check_shape

__all__ = ["token_logprobs"]


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
