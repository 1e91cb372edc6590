"""For which models keys and values may be kept: asked of the configuration, then tried on the model."""

from __future__ import annotations

from itertools import count
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import DynamicCache, PretrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from rlprm.models.heads.reading import read_sequences
from rlprm.models.heads.value_positions import ValuePosition
from rlprm.models.kv_cache.prefix_reader import Branch, PrefixReader
from rlprm.models.positions import length_of_steady_rope, positions_of
from rlprm.models.unwrap import unwrapped

__all__ = [
    "config_of",
    "has_full_attention",
    "random_words",
    "reads_growing",
    "reads_trees",
    "reason_against_keeping",
    "vocabulary_of",
]

_BOUND = 1e-3
_SHARE_OF_SPREAD = 0.02
_CALL_TOKENS = 6
"""With this, some rows are read alone and others are padded."""
_FOUND: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
_FOUND_TREES: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def config_of(model: PreTrainedModel) -> Any:
    """Return the configuration below engine and adapters."""
    inner: Any = unwrapped(model)
    return inner.config


def has_full_attention(config: PretrainedConfig) -> bool:
    """Whether every layer sees all earlier tokens, as far as a configuration says."""
    return not reason_against_keeping(config)


def reason_against_keeping(config: PretrainedConfig) -> str:
    """Return why a configuration forbids to keep keys and values across turns; empty if it does not.

    A window is assumed behind every name with ``window`` or ``chunk`` and a number below the model's context.
    LongRoPE turns keys by angles that depend on the length of the whole text, so kept keys grow wrong.
    """
    text = config.get_text_config(decoder=True)
    if length_of_steady_rope(config) is not None:
        return "the angles of its rope depend on the length of the text"
    longest = 0 if getattr(text, "use_sliding_window", True) is False else positions_of(config)
    for name, value in text.to_dict().items():
        is_number = isinstance(value, int) and not isinstance(value, bool)
        if ("window" in name or "chunk" in name) and is_number and 0 < value < longest:
            return f"{name} {value} is below the context of {longest} tokens"
    try:
        layers = DynamicCache(config=text).layers
    except (AttributeError, TypeError, ValueError, KeyError):
        return "transformers has no cache of keys and values for its configuration"
    others = sorted({type(layer).__name__ for layer in layers if type(layer) is not DynamicLayer})
    kinds = sorted(set(getattr(text, "layer_types", None) or ()) - {"full_attention"}) or others
    return f"layers of kind {', '.join(kinds)} keep something else" if others else ""


def vocabulary_of(model: PreTrainedModel) -> int:
    """Return the number of tokens that a model's logits are over."""
    return int(config_of(model).get_text_config(decoder=True).vocab_size)


def random_words(model: PreTrainedModel, length: int, seed: int) -> list[int]:
    """Return token ids to try a model on, without the first three, which often are special."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, vocabulary_of(model), (length,), generator=generator).tolist()


def reads_growing(model: PreTrainedModel) -> bool:
    """Whether a reward model's values of a search's candidates may be read by what is new in them.

    The reader of prefixes is compared with a whole forward, on branches of different lengths over two rounds.
    The answer is kept as long as the model is.
    """
    inner = unwrapped(model)
    if inner not in _FOUND:
        _FOUND[inner] = has_full_attention(config_of(model)) and _agrees(model, trees=False)
    return _FOUND[inner]


def reads_trees(model: PreTrainedModel) -> bool:
    """Whether siblings among these candidates may also share a row under a tree mask; found likewise."""
    inner = unwrapped(model)
    if inner not in _FOUND_TREES:
        _FOUND_TREES[inner] = reads_growing(model) and _agrees(model, trees=True)
    return _FOUND_TREES[inner]


def _agrees(model: PreTrainedModel, *, trees: bool) -> bool:
    seeds = count()

    def words(length: int) -> list[int]:
        return random_words(model, length, next(seeds))

    stems = [words(length) for length in (7, 4, 12)]
    reader = PrefixReader(model, call_tokens=_CALL_TOKENS, trees=trees)
    try:
        first = [_branch([*stem, *words(n)], 0, len(stem)) for stem in stems for n in (2, 5)]
        later = [(b, [*b.ids, *words(3)]) for b in first]
        counts = ((4, 1), (2, 2), (2, 5), (6, 1), (3, 3), (2, 4))
        second = [_branch([*stem, *words(n)], len(b.ids), len(stem))
                  for (b, stem), of_stem in zip(later, counts, strict=True) for n in of_stem]  # fmt: skip
        found = [value for branches in (first, second) for row in reader.read(branches)[0] for value in row]
    except Exception:  # of many kinds: what a model's code raises where a kept cache does not fit
        return False
    branches = [*first, *second]
    whole = read_sequences(
        model, [b.ids for b in branches], [b.positions for b in branches], [range(len(branches))]
    )
    right = [value for row in whole for value in row]
    differences = [abs(a - b) for a, b in zip(found, right, strict=True)]
    if model.dtype.itemsize >= 4:
        return max(differences) <= _BOUND
    # Values have no unit: their own spread is the measure. An untrained head has none, and nothing to tell.
    spread = max(right) - min(right)
    return sum(differences) / len(differences) <= _SHARE_OF_SPREAD * spread


def _branch(ids: list[int], parent: int, fork: int) -> Branch:
    """Return a branch whose action begins at its fork, with the values before and after the action.

    A scalar head reads the action at its last token, an lm head at all of its tokens.
    """
    action = ValuePosition(fork - 1, fork, len(ids))
    return Branch(ids, (ValuePosition.at(fork - 1), action, ValuePosition.at(len(ids) - 1)), parent, fork)
