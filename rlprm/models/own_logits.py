"""Logits from hidden states, as a language model itself computes them.

Most models apply their output layer and nothing more. Some scale the logits (Cohere, Granite) or cap them
(Gemma 2), some transform the hidden states before (BERT). Their own forward knows how. It runs with a body
that returns the given states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from rlprm.errors import ConfigError
from rlprm.models.causal import body_of
from rlprm.models.zero import is_split

__all__ = ["find_own_logits", "own_logits"]

_TOLERANCE = 1e-3
_NAMES = (
    "final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap", "logit_scale", "logits_scaling",
    "lm_head_multiplier", "output_multiplier_scale",
)  # fmt: skip
"""Names of a configuration behind which something is done to logits."""
_PLAIN: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


@dataclass
class _States(BaseModelOutputWithPastAndCrossAttentions):
    """What the body of any architecture may return, with nothing but hidden states in it."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("_"):
            raise AttributeError(name)


def own_logits(causal: Any, hidden_ND: Tensor) -> Tensor:
    """Return the logits (N, V) after N tokens, given the last hidden states there.

    Args:
        causal: language model, without engine and adapters around it.
        hidden_ND: what its body returns at these tokens.
    """
    if _is_plain(causal):
        logits_NV: Tensor = causal.get_output_embeddings()(hidden_ND)
        return logits_NV
    return _by_own_forward(causal, hidden_ND)


@torch.no_grad()
def find_own_logits(causal: Any) -> None:
    """Find out which of the two ways gives a model's own logits.

    Raises:
        ConfigError: if neither does, naming the family.
    """
    ids_BL = torch.arange(4, device=causal.device).unsqueeze(0)
    hidden_ND = body_of(causal)(input_ids=ids_BL, use_cache=False).last_hidden_state[0]
    own = _logits_of(causal, ids_BL)[0]
    layer = causal.get_output_embeddings()
    # Small logits would hide a cap, and training may make them large.
    if _has_plain_names(causal) and layer is not None and _gives(own, lambda: layer(hidden_ND)):
        _PLAIN[causal] = True
        return
    _PLAIN[causal] = False
    if not _gives(own, lambda: _by_own_forward(causal, hidden_ND)):
        raise ConfigError(
            f"models of type {causal.config.model_type} change logits behind their output layer in a way "
            "that cannot be repeated: their probabilities cannot be read here"
        )


def _is_plain(causal: Any) -> bool:
    if causal not in _PLAIN:
        if any(map(is_split, causal.parameters())):  # a forward of one process would wait for the others
            return _has_plain_names(causal)
        was_training = causal.training
        causal.eval()
        try:
            find_own_logits(causal)
        finally:
            causal.train(was_training)
    return _PLAIN[causal]


def _has_plain_names(causal: Any) -> bool:
    text = causal.config.get_text_config(decoder=True)
    return all(getattr(text, name, None) in (None, 1, 1.0) for name in _NAMES)


def _gives(own_NV: Tensor, read: Callable[[], Tensor]) -> bool:
    try:
        return _agree(read(), own_NV)
    except (RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError):
        return False


def _agree(ours_NV: Tensor, own_NV: Tensor) -> bool:
    rounding = max(_TOLERANCE, 2 * torch.finfo(own_NV.dtype).eps)
    return ours_NV.shape == own_NV.shape and torch.allclose(
        ours_NV.float(), own_NV.float(), atol=_TOLERANCE, rtol=rounding
    )


def _by_own_forward(causal: Any, hidden_ND: Tensor) -> Tensor:
    ids_1N = torch.zeros(1, len(hidden_ND), dtype=torch.long, device=hidden_ND.device)
    with _returning(body_of(causal), hidden_ND.unsqueeze(0)):
        return _logits_of(causal, ids_1N)[0]


def _logits_of(causal: Any, ids_BL: Tensor) -> Tensor:
    if hasattr(causal, "causal_logits"):  # a reward model's forward returns values
        return cast(Tensor, causal.causal_logits(ids_BL))
    return cast(Tensor, causal(input_ids=ids_BL, use_cache=False).logits)


@contextmanager
def _returning(body: nn.Module, hidden_BLD: Tensor) -> Iterator[None]:
    """Let a body return given states, whatever it is given."""
    had_own = "forward" in vars(body)
    before = body.forward
    body.forward = lambda *_, **__: _States(last_hidden_state=hidden_BLD)
    try:
        yield
    finally:
        if had_own:
            body.forward = before
        else:
            del body.forward
