"""Keys and values kept from one call to the next, so that a continuation feeds only its new tokens.

A policy sees the same conversations turn after turn, and a scorer sees the same candidates round after round
of a beam, each time a little longer. The cache looks rows up by their tokens. A row may be continued
several times (the branches of a beam) or not at all (a finished episode).
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from rlprm.models.kv_cache.roomy_layer import RoomyLayer

_T = TypeVar("_T")


@dataclass
class Extended:
    """The outputs for a batch of sequences, and the cache that the next call continues."""

    logits: Tensor
    """(B, K, ...): outputs at the K newly fed columns, or at the last ones that ``model_kwargs`` chose.
    They are hidden states if the model is a body without a head."""
    cache: Cache
    mask_BL: Tensor
    """True where a cache column holds a token of the row; a row's tokens are in order, with holes."""
    fed_B: list[int]
    """Number of new tokens of each row; they stand in the last ``fed_B[b]`` of the K columns."""


class PrefixCache:
    """The keys and values of one batch of sequences, looked up by their tokens."""

    def __init__(self) -> None:
        self._kept: tuple[Cache, Tensor] | None = None
        self._rows: dict[tuple[Hashable, bytes], int] = {}

    def extend(
        self,
        model: PreTrainedModel,
        sequences: Sequence[Sequence[int]],
        prefixes: Sequence[Sequence[int] | None],
        *,
        pad_id: int,
        owners: Sequence[Hashable] | None = None,
        **model_kwargs: Any,
    ) -> Extended:
        """Run sequences through a model; prefixes whose keys and values are kept are not fed again.

        A sequence whose prefix is missing is fed from its first token, whatever is kept of the others. The
        kept keys and values are given up until :meth:`keep` is called, so that memory never holds two
        generations.

        Args:
            model: any decoder with ``past_key_values``.
            sequences: B token sequences.
            prefixes: a proper prefix of each sequence that may be kept, or None.
            pad_id: pads rows on the left.
            owners: of the sequences. A prefix is looked up among those of its owner.
            **model_kwargs: passed on to the model.
        """
        keys = [None if p is None else (o, sequence_key(p)) for p, o in _with_owners(prefixes, owners)]
        cache, mask_BL = self._take(keys) or (_empty(), torch.zeros(len(sequences), 0, dtype=torch.bool))
        suffixes = [s[known:] for s, known in zip(sequences, mask_BL.sum(1).tolist(), strict=True)]
        ids_BK, new_BK = _left_pad(suffixes, pad_id)
        mask_BL = torch.cat([mask_BL.to(model.device), new_BK.to(model.device)], dim=1)
        positions_BK = (mask_BL.long().cumsum(1) - 1).clamp(min=0)[:, -ids_BK.shape[1] :]
        output = model(
            input_ids=ids_BK.to(model.device),
            attention_mask=mask_BL.long(),
            position_ids=positions_BK,
            past_key_values=cache,
            use_cache=True,
            **model_kwargs,
        )
        outputs = output.logits if hasattr(output, "logits") else output.last_hidden_state
        return Extended(outputs, cache, mask_BL, [len(suffix) for suffix in suffixes])

    def keep(
        self,
        cache: Cache,
        mask_BL: Tensor,
        sequences: Sequence[Sequence[int]],
        owners: Sequence[Hashable] | None = None,
    ) -> None:
        """Keep a batch's keys and values; later calls look them up by these sequences, one per row."""
        self._kept = (cache, mask_BL)
        self._rows = {(o, sequence_key(s)): row for row, (s, o) in enumerate(_with_owners(sequences, owners))}

    def clear(self) -> None:
        """Drop everything."""
        self._kept, self._rows = None, {}

    def _take(self, keys: Sequence[tuple[Hashable, bytes] | None]) -> tuple[Cache, Tensor] | None:
        """Return the rows of these prefixes, without tokens where a prefix is missing; None if all are."""
        kept, row_of = self._kept, self._rows
        self.clear()
        rows = [None if key is None else row_of.get(key) for key in keys]
        if kept is None or all(row is None for row in rows):
            return None
        return _select_and_compact(*kept, rows)


def sequence_key(ids: Sequence[int]) -> bytes:
    """Return a key that identifies a token sequence in a dictionary."""
    return array("I", ids).tobytes()


def _with_owners(items: Sequence[_T], owners: Sequence[Hashable] | None) -> Iterator[tuple[_T, Hashable]]:
    return zip(items, [None] * len(items) if owners is None else owners, strict=True)


def _empty() -> Cache:
    return Cache(layer_class_to_replicate=RoomyLayer)


def _left_pad(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([[pad_id] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[False] * (width - len(row)) + [True] * len(row) for row in rows])
    return ids, mask


def _select_and_compact(cache: Cache, mask_BL: Tensor, rows: Sequence[int | None]) -> tuple[Cache, Tensor]:
    """Take some rows and move their tokens together, over columns that hold no token of a row.

    None makes a row without tokens.

    Otherwise actions and observations of different lengths would leave more and more holes in the cache.
    Nothing is copied if all rows stay in place and have no holes.
    """
    if list(rows) == list(range(len(mask_BL))) and bool(mask_BL.all()):
        return cache, mask_BL
    rows_B = torch.tensor([row or 0 for row in rows], device=mask_BL.device)
    there_B = torch.tensor([row is not None for row in rows], device=mask_BL.device)
    mask_BL = mask_BL[rows_B] & there_B[:, None]
    lengths_B = mask_BL.sum(1)
    width = int(lengths_B.max())
    # A stable sort by "is a hole" moves each row's tokens to the left, in order.
    columns_BL = torch.argsort((~mask_BL).to(torch.uint8), dim=1, stable=True)[:, :width]
    for layer in cache.layers:
        layer.select(rows_B, columns_BL)
    kept = torch.arange(width, device=mask_BL.device)[None] < lengths_B[:, None]
    return cache, kept
