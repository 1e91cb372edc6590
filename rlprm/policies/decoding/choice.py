"""Which way of decoding is right for a model: found by trying, on the model itself.

The ways are tried from the fastest to the slowest, on a small batch with what breaks them: contexts of
different lengths, actions that end early, a second turn. A way is right if the log-probabilities that it gave
its tokens are those of one whole forward. What a small batch cannot show is read from the configuration: a
window that is longer than the batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import PreTrainedModel

from rlprm.errors import ConfigError, first_line
from rlprm.models.kv_cache.support import config_of, random_words, reason_against_keeping, vocabulary_of
from rlprm.models.unwrap import unwrapped
from rlprm.policies.decoding.base import Contexts, Decoded, Decoder, Draw
from rlprm.policies.decoding.kept import KeptCache
from rlprm.policies.decoding.per_turn import TurnCache
from rlprm.policies.decoding.rounding import exceeds_rounding
from rlprm.policies.decoding.whole import Whole, teacher_forced

__all__ = ["WAYS", "differences_of", "noise_of", "right_way", "shares_rows", "way_by_name"]

log = logging.getLogger(__name__)

WAYS: Mapping[str, Callable[[int], Decoder]] = {
    "kept": KeptCache,
    "turn": lambda _: TurnCache(padded=True),
    "turn_by_length": lambda _: TurnCache(padded=False),
    "whole": lambda _: Whole(),
}
"""Name → what makes the decoder, given the token that closes an action; the fastest first."""
_SLOWER = {
    "turn": "every turn is encoded from its first token",
    "turn_by_length": "every turn is encoded from its first token, contexts of one length at a time",
    "whole": "every token costs a forward of all tokens before it",
}
_CACHES = {
    "kept": "a cache kept across turns",
    "turn": "the model's own cache",
    "turn_by_length": "the model's own cache by length",
}
_CONTEXTS = (5, 11, 8, 19)
_LATER = (4, 1, 9, 3)
_LENGTH = 6
_CALL_TOKENS = 10
"""With this, each turn of the contexts above has two calls, one of a row and one of three that are padded."""
_FOUND: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()
_FOUND_TREES: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def way_by_name(name: str, closing_id: int) -> Decoder:
    """Return a decoder by its name in :data:`WAYS`."""
    return WAYS[name](closing_id)


@torch.inference_mode()
def right_way(model: PreTrainedModel) -> str:
    """Return the name of the fastest way of decoding that is right for a model.

    The answer is kept as long as the model is.

    Raises:
        ConfigError: if the model does not write from left to right.
    """
    inner = unwrapped(model)
    if inner not in _FOUND:
        _FOUND[inner], reasons = _tried(model)
        if _FOUND[inner] in _SLOWER:
            log.warning(
                "models of type %s decode more slowly here: %s; %s",
                config_of(model).model_type,
                _SLOWER[_FOUND[inner]],
                "; ".join(reasons),
            )
    return _FOUND[inner]


def _tried(model: PreTrainedModel) -> tuple[str, list[str]]:
    """Return the fastest right way, and for each faster way why that way is wrong."""
    dtype, noise = _precision_of(model)
    reasons: list[str] = []
    for name in WAYS:
        if name == "whole":
            return name, reasons
        reason = reason_against_keeping(config_of(model)) if name == "kept" else ""
        decoder = KeptCache(-1, call_tokens=_CALL_TOKENS) if name == "kept" else way_by_name(name, -1)
        if not (reason := reason or _reason_when_tried(model, decoder, dtype, noise)):
            return name, reasons
        reasons.append(f"{_CACHES[name]} is not used ({reason})")
    raise AssertionError("the last way is not tried")


@torch.inference_mode()
def shares_rows(model: PreTrainedModel) -> bool:
    """Whether actions of one context may also share its row, under a tree mask; found in the same way."""
    inner = unwrapped(model)
    if inner not in _FOUND_TREES:
        decoder = KeptCache(-1, call_tokens=_CALL_TOKENS, trees=True)
        _FOUND_TREES[inner] = right_way(model) == "kept" and not _reason_when_tried(
            model, decoder, *_precision_of(model), copies=2
        )
    return _FOUND_TREES[inner]


def _precision_of(model: PreTrainedModel) -> tuple[torch.dtype, float]:
    """Return the precision of a model's logits, and its noise, which is asked for in half precision only."""
    dtype = _refuse_other_directions(model)
    return dtype, 0.0 if dtype.itemsize >= 4 else noise_of(model)


def _reason_when_tried(
    model: PreTrainedModel, decoder: Decoder, dtype: torch.dtype, noise: float, *, copies: int = 1
) -> str:
    try:
        differences = differences_of(model, decoder, copies=copies)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of many kinds: what a model's code raises where a way does not fit
        return f"it fails ({type(error).__name__}: {(str(error).strip() or 'no text').splitlines()[0][:100]})"
    if not exceeds_rounding(differences, dtype, noise):
        return ""
    if dtype.itemsize >= 4:
        return f"log-probabilities differed by up to {max(differences):.2g} nats when tried"
    return (
        f"log-probabilities differed by {sum(differences) / len(differences):.2g} nats on average when tried"
    )


def _refuse_other_directions(model: PreTrainedModel) -> torch.dtype:
    """Refuse a model whose probabilities depend on later tokens, or on the rows beside.

    Returns:
        The precision of its logits, which under autocast is not that of its weights.

    Raises:
        ConfigError: naming the architecture.
    """
    first = random_words(model, 5, 0)
    family = config_of(model).model_type
    try:
        # Batches of one shape: a device may sum in another order for another shape.
        found = [
            model(input_ids=torch.tensor(rows, device=model.device), use_cache=False).logits
            for rows in (
                [[*first, *random_words(model, 6, i)], random_words(model, 11, 10 + i)] for i in (1, 2)
            )
        ]
        one_V, other_V = (torch.log_softmax(logits[0, len(first) - 1].float(), -1) for logits in found)
        differences = (one_V - other_V).abs().tolist()
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError) as error:
        reason = first_line(error)
        raise ConfigError(f"models of type {family} cannot be read here: {reason}") from error
    if exceeds_rounding(differences, found[0].dtype):
        raise ConfigError(
            f"models of type {family} do not write from left to right: later tokens change "
            f"the probabilities of earlier ones by {max(differences):.2g} nats"
        )
    dtype: torch.dtype = found[0].dtype
    return dtype


def differences_of(model: PreTrainedModel, decoder: Decoder, *, copies: int = 1) -> list[float]:
    """Return the errors, in nats, of the log-probabilities of two turns, of several actions a context."""
    first = _contexts(model)
    try:
        row_of = [row for row in range(len(first)) for _ in range(copies)]
        said = decoder.decode(
            model, Contexts(first, row_of, [None] * len(first)), _draw(model, 1, len(row_of))
        )
        errors = _errors(model, [first[row] for row in row_of], said)
        kept = [[*first[row], *ids] for row, ids in zip(row_of, said.ids, strict=True)]
        second = [
            [*row, *random_words(model, count, 40 + count)]
            for row, count in zip(kept, _LATER * copies, strict=True)
        ]
        row_of = [row for row in range(len(second)) for _ in range(copies)]
        again = decoder.decode(model, Contexts(second, row_of, kept), _draw(model, 2, len(row_of)))
        return [*errors, *_errors(model, [second[row] for row in row_of], again)]
    finally:
        decoder.clear()


def noise_of(model: PreTrainedModel) -> float:
    """Return the mean difference, in nats, between whole forwards of rows together and of each row alone.

    Both are right. What differs is the order in which a device sums, and so the rounding.
    """
    contexts = _contexts(model)
    actions = [random_words(model, _LENGTH, 60 + i) for i in range(len(contexts))]
    together = teacher_forced(model, contexts, actions, temperature=1.0)
    alone = [
        teacher_forced(model, [context], [action], temperature=1.0)[0]
        for context, action in zip(contexts, actions, strict=True)
    ]
    pairs = [
        (a, b) for row, other in zip(together, alone, strict=True) for a, b in zip(row, other, strict=True)
    ]
    return sum(abs(a - b) for a, b in pairs) / len(pairs)


def _draw(model: PreTrainedModel, seed: int, rows: int) -> Draw:
    """Draw actions of different lengths: every second token is an end."""
    uniforms_BK = torch.rand(rows, _LENGTH, generator=torch.Generator().manual_seed(seed))
    return Draw(uniforms_BK, 1.0, torch.arange(0, vocabulary_of(model), 2), pad_id=0)


def _errors(model: PreTrainedModel, contexts: Sequence[Sequence[int]], said: Decoded) -> list[float]:
    right = teacher_forced(model, contexts, said.ids, temperature=1.0)
    return [
        abs(a - b)
        for ours, theirs in zip(said.logprobs, right, strict=True)
        for a, b in zip(ours, theirs, strict=True)
    ]


def _contexts(model: PreTrainedModel) -> list[list[int]]:
    return [random_words(model, count, seed) for seed, count in enumerate(_CONTEXTS)]
