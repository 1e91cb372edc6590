"""The promise loss and the progress loss of AgentPRM (arXiv 2511.08325), as sums.

    L_Q = Σ_t w_t ½ (v_t - Q̂_t)²               t = 0 ... T
    L_A = Σ_t u_t (v_t - v_{t-1} - Â_t)²        t = 1 ... T
    L   = (L_Q + β L_A) / number of links

A link is the difference of two neighbouring values, ``v_t - v_{t-1}``. A trajectory of T steps
has T links if values are read after actions only, and 2 T - 1 if they are read before
actions, too (``value_reads: state_and_action``; T above is then the number of links).

The functions return sums because the paper's mean runs over the whole batch. The caller
divides by one global number of links. The loss is then the same however the batch
is split over rows, micro-batches or processes.

Entries of weight 0 are replaced by 0 before anything nonlinear: neither the loss nor any
gradient depends on their content, NaN included. Everything is computed in at least float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from rlprm.errors import ConfigError
from rlprm.functional._checks import check_matrix, check_shape
from rlprm.functional.activation import activate, check_activation

__all__ = ["PROMISE_LOSSES", "AgentPRMLoss", "agent_prm_loss", "check_loss", "progress_loss", "promise_loss"]


class AgentPRMLoss(NamedTuple):
    """The loss and its two parts; ``total = promise + β progress``."""

    total: Tensor
    """What to call ``backward`` on."""
    promise: Tensor
    """L_Q divided by the number of links; detached."""
    progress: Tensor
    """L_A divided by the number of links, before β; detached."""


def _half_squared_error(values: Tensor, targets: Tensor) -> Tensor:
    return 0.5 * (values - targets) ** 2


def _binary_divergence(logits: Tensor, targets: Tensor) -> Tensor:
    targets = targets.clamp(0.0, 1.0)
    entropy = -(torch.xlogy(targets, targets) + torch.xlogy(1.0 - targets, 1.0 - targets))
    return softplus(logits) - targets * logits - entropy


PROMISE_LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {"mse": _half_squared_error, "bce": _binary_divergence}
)
"""Entry-wise losses: of values (``mse``) or of logits of a sigmoid head (``bce``) against targets."""


def check_loss(kind: str, activation: str) -> None:
    """Refuse an unknown promise loss or activation, or a pair that cannot be combined.

    Raises:
        ConfigError: saying which names there are.
    """
    if kind not in PROMISE_LOSSES:
        raise ConfigError(f"unknown promise loss {kind!r}; known: {', '.join(PROMISE_LOSSES)}")
    check_activation(activation)
    if kind == "bce" and activation != "sigmoid":
        raise ConfigError(f"the promise loss 'bce' needs the activation 'sigmoid', got {activation!r}")


def promise_loss(
    predictions_BT1: Tensor, targets_BT1: Tensor, weights_BT1: Tensor, *, kind: str = "mse"
) -> Tensor:
    """Return ``Σ_t w_t ℓ(v_t, Q̂_t)`` over all values of the batch, ``t = 0 ... T`` (a scalar).

    ``mse``: ``ℓ = ½ (v - Q̂)²``; predictions are *values*.

    ``bce``: predictions are *logits* z with ``v = sigmoid(z)``, and ℓ is the
    cross-entropy of the soft target minus the target's own entropy, i.e. the
    Kullback-Leibler divergence ``KL(Q̂ || v) = softplus(z) - Q̂ z - H(Q̂)``. The
    entropy has no gradient. Subtracting it makes the loss of a perfect fit 0, so that
    losses against old and new labels can be compared. Targets are clipped to [0, 1],
    because λ-returns may leave it. (Near the target ℓ is ``½ (v - Q̂)² / (Q̂ (1 - Q̂))``.)
    """
    rows, columns = check_matrix("predictions_BT1", predictions_BT1)
    check_shape("targets_BT1", targets_BT1, (rows, columns))
    check_shape("weights_BT1", weights_BT1, (rows, columns))
    if kind not in PROMISE_LOSSES:
        raise ConfigError(f"unknown promise loss {kind!r}; known: {', '.join(PROMISE_LOSSES)}")
    used_BT1 = weights_BT1 != 0
    predictions_BT1 = _at_least_float32(predictions_BT1.where(used_BT1, 0.0))
    targets_BT1 = targets_BT1.to(predictions_BT1.dtype).where(used_BT1, 0.0)
    losses_BT1 = PROMISE_LOSSES[kind](predictions_BT1, targets_BT1)
    return (weights_BT1.to(losses_BT1.dtype) * losses_BT1).sum()


def progress_loss(values_BT1: Tensor, targets_BT: Tensor, weights_BT: Tensor) -> Tensor:
    """Return ``Σ_t u_t (v_t - v_{t-1} - Â_t)²`` over all links of the batch, ``t = 1 ... T`` (a scalar).

    The gradient flows into both ``v_t`` and ``v_{t-1}``. With labels made from
    these very values the bracket equals ``v_t - Q̂_t``.
    """
    rows, columns = check_matrix("values_BT1", values_BT1, min_columns=1)
    check_shape("targets_BT", targets_BT, (rows, columns - 1))
    check_shape("weights_BT", weights_BT, (rows, columns - 1))
    values_BT1 = _at_least_float32(values_BT1)
    errors_BT = values_BT1[:, 1:] - values_BT1[:, :-1] - targets_BT.to(values_BT1.dtype)
    errors_BT = errors_BT.where(weights_BT != 0, 0.0)
    return (weights_BT.to(errors_BT.dtype) * errors_BT**2).sum()


def agent_prm_loss(
    logits_BT1: Tensor,
    promise_BT1: Tensor,
    progress_BT: Tensor,
    promise_weight_BT1: Tensor,
    progress_weight_BT: Tensor,
    *,
    num_links: float | Tensor,
    beta: float,
    kind: str = "mse",
    activation: str = "identity",
) -> AgentPRMLoss:
    """Return ``L = (L_Q + β L_A) / num_links`` from a head's raw outputs.

    Args:
        logits_BT1: the head's outputs for ``v_0 ... v_T``, before the activation.
        promise_BT1: Q̂, targets of ``v_0 ... v_T``.
        progress_BT: Â, targets of ``v_t - v_{t-1}``. They are compared with *values*, even if
            the promise loss works on logits.
        promise_weight_BT1: w; 0 for a value without a target, padding included.
        progress_weight_BT: u; 0 for a link without a target, padding included.
        num_links: links of the whole batch, over all its micro-batches and processes.
        beta: β.
        kind: the promise loss, see ``PROMISE_LOSSES``.
        activation: see ``rlprm.functional.activation``.
    """
    check_loss(kind, activation)
    rows, columns = check_matrix("logits_BT1", logits_BT1, min_columns=1)
    check_shape("progress_weight_BT", progress_weight_BT, (rows, columns - 1))
    check_shape("promise_weight_BT1", promise_weight_BT1, (rows, columns))
    used_BT1 = (promise_weight_BT1 != 0) | _ends_of(progress_weight_BT != 0)
    logits_BT1 = _at_least_float32(logits_BT1.where(used_BT1, 0.0))
    values_BT1 = activate(logits_BT1, activation)

    predictions_BT1 = logits_BT1 if kind == "bce" else values_BT1
    promise = promise_loss(predictions_BT1, promise_BT1, promise_weight_BT1, kind=kind) / num_links
    progress = progress_loss(values_BT1, progress_BT, progress_weight_BT) / num_links
    total = promise + beta * progress if beta != 0 else promise
    return AgentPRMLoss(total, promise.detach(), progress.detach())


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _ends_of(links_BT: Tensor) -> Tensor:
    """Mark the values (B, T+1) at either end of a marked link (B, T): link t has ``v_{t-1}`` and ``v_t``."""
    none_B1 = links_BT.new_zeros(links_BT.shape[0], 1)
    return torch.cat([links_BT, none_B1], dim=1) | torch.cat([none_B1, links_BT], dim=1)
