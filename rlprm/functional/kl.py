r"""How far a policy is from a reference, estimated from the tokens the policy sampled.

With ``ℓ = log π(a) - log π_ref(a)`` at a sampled token, estimators of KL(π || π_ref):

* ``k1 = ℓ``: unbiased, may be negative.
* ``k2 = ½ ℓ²``: biased, low variance.
* ``k3 = e^{-ℓ} - 1 + ℓ``: unbiased, never negative.

(John Schulman, "Approximating KL divergence", joschu.net/blog/kl-approx.html.) That
is about *values*. The gradient of an estimator is another matter, since the tokens
come from π itself: the gradient of KL is ``E[ℓ ∇log π]``, whereas on samples of π

* ``∇k1 = ∇log π``, whose expectation is 0: no pull at all;
* ``∇k2 = ℓ ∇log π``: right, as long as the samples come from π as it is now;
* ``∇k3 = (1 - e^{-ℓ}) ∇log π``: biased, the gradient of KL(π_ref || π).

(trl#4967, trl#4638, arXiv 2512.21852.) Hence two ways to hold a policy near a reference:

* ``k1`` of ``kl_values`` subtracted from the *reward* of the token or step. Unbiased for
  the KL of whole episodes: an action also answers for the states it leads to.
* ``kl_loss`` added to the *loss*. Unbiased for the KL at each token given what came
  before; what a token does to the KL of later ones is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from rlprm.errors import ConfigError
from rlprm.functional._checks import check_shape

__all__ = ["KL_ESTIMATORS", "KL_LOSSES", "kl_loss", "kl_values", "masked_difference"]

KL_ESTIMATORS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "k1": lambda log_ratio: log_ratio,
        "k2": lambda log_ratio: 0.5 * log_ratio**2,
        "k3": lambda log_ratio: torch.expm1(-log_ratio) + log_ratio,
    }
)
"""From ``ℓ = log π - log π_ref`` to an estimate; see the head of this file."""

KL_LOSSES = ("unbiased", "k2")
"""What ``kl_loss`` offers. ``k3`` is not among them: its gradient is that of another divergence."""


def masked_difference(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """Return ``a - b`` in at least float32, and 0 where the mask is 0, whatever stands there.

    Log-probabilities of tokens that do not count are often a sentinel (0, -inf, 1e9). It is
    taken out before anything is exponentiated, so that neither a ratio nor a gradient sees it.
    """
    check_shape("b", b, tuple(a.shape))
    check_shape("mask", mask, tuple(a.shape))
    exists = mask != 0
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    return a.to(dtype).where(exists, 0.0) - b.to(dtype).where(exists, 0.0)


def kl_values(logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, *, kind: str = "k1") -> Tensor:
    """Return an estimate of KL(π || π_ref) for each token, 0 where the mask is 0; without gradient.

    For reports, and as a penalty in the reward (``k1``).

    Args:
        logprobs: log π of the sampled tokens, any shape.
        ref_logprobs: log π_ref of the same tokens.
        mask: which of them count.
        kind: see ``KL_ESTIMATORS``.
    """
    if kind not in KL_ESTIMATORS:
        raise ConfigError(f"unknown KL estimator {kind!r}; known: {', '.join(KL_ESTIMATORS)}")
    return KL_ESTIMATORS[kind](masked_difference(logprobs.detach(), ref_logprobs.detach(), mask))


def kl_loss(
    logprobs: Tensor,
    ref_logprobs: Tensor,
    old_logprobs: Tensor,
    mask: Tensor,
    *,
    denominator: float | Tensor,
    kind: str = "unbiased",
) -> Tensor:
    """Return a loss whose gradient is that of the mean KL(π || π_ref) over tokens (a scalar).

    ``unbiased``: ``ρ k3`` with ``ρ = π / π_old``, both differentiated: the gradient is
    ``ρ ℓ ∇log π`` exactly (DeepSeek-V3.2, arXiv 2512.02556), right also when π has moved
    away from the policy π_old that sampled. Its value estimates the KL without bias.

    ``k2``: ``½ ℓ²``, with gradient ``ℓ ∇log π``: right at the first update after sampling,
    biased afterwards; no ratio, hence less variance. Its value is not the KL.

    Args:
        logprobs: log π of the sampled tokens, any shape, with gradient.
        ref_logprobs: log π_ref of the same tokens.
        old_logprobs: log π_old: of the policy that sampled, as the trainer computes it.
        mask: which of them count.
        denominator: tokens that count in the whole update, over all micro-batches and processes.
        kind: see ``KL_LOSSES``.

    Raises:
        ConfigError: for another kind; ``k1`` has no pull and ``k3`` a biased one.
    """
    if kind not in KL_LOSSES:
        raise ConfigError(
            f"unknown KL loss {kind!r}; known: {', '.join(KL_LOSSES)} (inside a loss, the gradient of k1 "
            "vanishes on average and that of k3 is biased)"
        )
    log_ratio = masked_difference(logprobs, ref_logprobs.detach(), mask)
    terms = KL_ESTIMATORS["k2" if kind == "k2" else "k3"](log_ratio)
    if kind == "unbiased":
        terms = masked_difference(logprobs, old_logprobs.detach(), mask).exp() * terms
    return terms.sum() / denominator
