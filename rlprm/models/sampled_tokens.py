"""Log-probabilities of sampled tokens under a causal language model, computed at these tokens only.

With a vocabulary of 150,000 and long observations, the logits of the other tokens would need most
of the memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from rlprm.functional.logprobs import entropy, token_logprobs
from rlprm.models.causal import body_of
from rlprm.models.own_logits import find_own_logits, own_logits
from rlprm.models.unwrap import unwrapped
from rlprm.models.zero import is_split

__all__ = ["body_states", "check_logits", "in_parts", "read_tokens"]

_TOKENS_AT_ONCE = 1024


def body_states(model: PreTrainedModel | PeftModel, token_ids_BL: Tensor) -> Tensor:
    """Return the last hidden states (B, L, D), adapters included."""
    states: Tensor = body_of(_causal(model))(input_ids=token_ids_BL, use_cache=False).last_hidden_state
    return states


def read_tokens(
    model: PreTrainedModel | PeftModel,
    hidden_ND: Tensor,
    ids_N: Tensor,
    *,
    temperature: float = 1.0,
    with_entropy: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return log-probabilities and entropies of N tokens, both (N,), in at least float32.

    Tokens are processed in parts, and each part is computed again in the backward pass: with a vocabulary
    of 150,000, logits and their gradients need 2 MB a token.

    Args:
        model: causal language model, with adapters or without.
        hidden_ND: last hidden state at the position before each token.
        ids_N: the tokens.
        temperature: of the sampling distribution, above 0.
        with_entropy: False returns zeros instead of entropies.
    """
    causal = _causal(model)

    def read(part_ND: Tensor, part_N: Tensor) -> tuple[Tensor, Tensor]:
        logits_NV = own_logits(causal, part_ND)
        if temperature != 1.0:
            # In float32, as the sampler does: rounded quotients would be another distribution.
            logits_NV = logits_NV.float() / temperature
        logprobs_N = token_logprobs(logits_NV, part_N)
        return logprobs_N, entropy(logits_NV) if with_entropy else torch.zeros_like(logprobs_N)

    logprobs_N, entropies_N = in_parts(read, causal, hidden_ND, ids_N)
    return logprobs_N, entropies_N


def in_parts(
    read: Callable[[Tensor, Tensor], tuple[Tensor, ...]], causal: nn.Module, hidden_ND: Tensor, ids_N: Tensor
) -> tuple[Tensor, ...]:
    """Read N tokens in parts, each of which is computed again in the backward pass.

    Args:
        read: of hidden states and ids to results, one value a token.
        causal: the model whose output layer ``read`` uses.
        hidden_ND: last hidden state at the position before each token.
        ids_N: the tokens.

    Returns:
        The results of ``read`` for all tokens.
    """
    # With a layer that ZeRO-3 has split every call is a collective, and processes differ in their tokens.
    if len(ids_N) <= _TOKENS_AT_ONCE or any(map(is_split, causal.parameters())):
        return read(hidden_ND, ids_N)
    parts = [
        checkpoint(read, *part, use_reentrant=False, preserve_rng_state=False)
        if torch.is_grad_enabled()
        else read(*part)
        for part in zip(*(torch.split(x, _TOKENS_AT_ONCE) for x in (hidden_ND, ids_N)), strict=True)
    ]
    return tuple(map(torch.cat, zip(*parts, strict=True)))


def check_logits(model: PreTrainedModel | PeftModel) -> None:
    """Refuse a model whose logits cannot be computed from its hidden states.

    Raises:
        ConfigError: naming the model family.
    """
    find_own_logits(_causal(model))


def _causal(model: PreTrainedModel | PeftModel) -> Any:
    return unwrapped(model)
