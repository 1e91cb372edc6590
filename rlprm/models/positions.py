"""How many tokens a conversation may have for a model, as its configuration says."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig

__all__ = ["NO_LIMIT", "length_of_steady_rope", "positions_of"]

NO_LIMIT = 1 << 20
"""Of models that name no number of positions, such as state-space models."""
_NAMES = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length")


def positions_of(config: PretrainedConfig) -> int:
    """Return the number of tokens that a conversation may have.

    A rope whose angles depend on the length of the whole text gives earlier tokens other keys when the text
    passes a length. Sampled tokens would lose their probabilities, so that length is the limit.
    """
    text: Any = config.get_text_config(decoder=True)
    named = [value for name in _NAMES if isinstance(value := getattr(text, name, None), int)]
    return min(named[0] if named else NO_LIMIT, length_of_steady_rope(config) or NO_LIMIT)


def length_of_steady_rope(config: PretrainedConfig) -> int | None:
    """Return the length up to which a rope that depends on the length does not; None for every other rope."""
    text: Any = config.get_text_config(decoder=True)
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    for part in [rope, *(part for part in rope.values() if isinstance(part, dict))]:
        if part.get("rope_type", part.get("type")) in ("longrope", "dynamic"):
            named = part.get("original_max_position_embeddings")
            named = named or getattr(text, "original_max_position_embeddings", None)
            return int(named or getattr(text, "max_position_embeddings", None) or NO_LIMIT)
    return None
