"""The embedded model: Qwen2's architecture at laptop size, with random weights."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from rlprm.errors import ConfigError

SIZES: dict[str, dict[str, Any]] = {
    # name: about 0.1, 0.35, 0.8 and 2 million parameters beside the embedding
    "xs": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2},
    "s": {"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 3, "num_key_value_heads": 3},
    "m": {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2},
    "l": {"hidden_size": 192, "num_hidden_layers": 5, "num_attention_heads": 6, "num_key_value_heads": 3},
}
"""Shapes by name. Every head is 32 wide, because inference servers refuse narrower ones. The two smallest
sizes have few heads, and sharing their keys and values costs more than it saves."""


def tiny_model(
    tokenizer: PreTrainedTokenizerBase, *, size: str = "s", context_length: int = 2048, seed: int = 0
) -> Qwen2ForCausalLM:
    """Build a small random Qwen2 for a tokenizer.

    Args:
        tokenizer: decides the vocabulary and the special ids.
        size: one of :data:`SIZES`.
        context_length: maximum number of positions, in tokens.
        seed: of the initial weights.

    Raises:
        ConfigError: for an unknown size.
    """
    if size not in SIZES:
        raise ConfigError(f"unknown tiny model size {size!r}; known: {', '.join(SIZES)}")
    shape = SIZES[size]
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        intermediate_size=3 * shape["hidden_size"],
        # Qwen2's 0.02 suits widths of thousands; at these widths it would take most of the training to undo.
        initializer_range=shape["hidden_size"] ** -0.5,
        max_position_embeddings=context_length,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **shape,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config)
