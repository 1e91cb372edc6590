"""Keys and values kept from one call to the next, so that a continuation feeds only its new tokens.

A policy sees the same conversations turn after turn, and a scorer sees the same candidates round after round
of a beam, each time a little longer. The cache looks rows up by their tokens. A row may be continued
several times (the branches of a beam) or not at all (a finished episode).

What is new differs in length from row to row, an observation here and a whole prompt there. Rows of similar
length go through the model together, in as many calls as cost the least (``rlprm.data.batching``).
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from rlprm.data.batching import budget_batches, call_tokens
from rlprm.models.kv_cache.roomy_layer import RoomyLayer, part_of

_T = TypeVar("_T")


@dataclass
class Extended:
    """The outputs for a batch of sequences, and the cache that the next call continues."""

    logits: Tensor
    """(B, K, ...): outputs at the K newly fed columns, or at the last ones that ``model_kwargs`` chose. Zeros
    stand on the left of rows that were fed together with none of the longest.
    They are hidden states if the model is a body without a head."""
    cache: Cache
    mask_BL: Tensor
    """True where a cache column holds a token of the row; a row's tokens are in order, with holes."""
    fed_B: list[int]
    """Number of new tokens of each row; their outputs stand in the last ``fed_B[b]`` of the K columns."""


class PrefixCache:
    """The keys and values of one batch of sequences, looked up by their tokens.

    Args:
        call_tokens: padding that costs as much as one more call of the model; that of its device if None.
    """

    def __init__(self, *, call_tokens: float | None = None) -> None:
        self.call_tokens = call_tokens
        self._kept: tuple[Cache, Tensor, Sequence[int]] | None = None
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
        lengths_B = torch.tensor([len(s) for s in sequences])
        cache, mask_BL = self._take(keys, lengths_B) or (
            _empty(),
            torch.zeros(len(sequences), 0, dtype=torch.bool),
        )
        known_B = mask_BL.sum(1)
        suffixes = [s[known:] for s, known in zip(sequences, known_B.tolist(), strict=True)]
        fed_B = [len(suffix) for suffix in suffixes]
        calls = self._calls(fed_B, model.device)
        # Columns that each call sees, and the columns of all rows once it is done.
        starts = [int(known_B[rows].max()) for rows in calls] if len(calls) > 1 else [mask_BL.shape[1]]
        ends = [start + max(fed_B[row] for row in rows) for start, rows in zip(starts, calls, strict=True)]
        shape = len(sequences), max(ends)
        whole_BL = torch.zeros(shape, dtype=torch.bool, device=model.device)
        outputs = []
        for rows, start, end in zip(calls, starts, ends, strict=True):
            rows_G = torch.tensor(rows, device=model.device)
            ids_GK, new_GK = _left_pad([suffixes[row] for row in rows], pad_id)
            mask_GL = torch.cat([mask_BL.to(model.device)[rows_G, :start], new_GK.to(model.device)], dim=1)
            whole_BL[rows_G, :end] = mask_GL
            output = model(
                input_ids=ids_GK.to(model.device),
                attention_mask=mask_GL.long(),
                position_ids=(mask_GL.long().cumsum(1) - 1).clamp(min=0)[:, start:],
                past_key_values=cache if len(calls) == 1 else part_of(cache, rows_G, start, shape),
                use_cache=True,
                **model_kwargs,
            )
            outputs.append(output.logits if hasattr(output, "logits") else output.last_hidden_state)
        return Extended(_in_order(outputs, calls), cache, whole_BL, fed_B)

    def _calls(self, lengths: Sequence[int], device: torch.device) -> list[list[int]]:
        """Split rows into those that go through the model together, given the lengths of what is new."""
        of_call = call_tokens(device) if self.call_tokens is None else self.call_tokens
        return [sorted(rows) for rows in budget_batches(lengths, math.inf, call_tokens=of_call)]

    def keep(
        self,
        cache: Cache,
        mask_BL: Tensor,
        sequences: Sequence[Sequence[int]],
        owners: Sequence[Hashable] | None = None,
        rows: Sequence[int] | None = None,
    ) -> None:
        """Keep a batch's keys and values; later calls look them up by these sequences.

        Args:
            cache: of the batch.
            mask_BL: True where a column of the sequence's row holds a token of the sequence.
            sequences: B token sequences.
            owners: of the sequences.
            rows: the row of each sequence in the cache, in which other sequences may stand, too; one after
                another if None.
        """
        self._kept = (cache, mask_BL, range(len(sequences)) if rows is None else rows)
        self._rows = {(o, sequence_key(s)): row for row, (s, o) in enumerate(_with_owners(sequences, owners))}

    def clear(self) -> None:
        """Drop everything."""
        self._kept, self._rows = None, {}

    def _take(
        self, keys: Sequence[tuple[Hashable, bytes] | None], lengths_B: Tensor
    ) -> tuple[Cache, Tensor] | None:
        """Return the rows of these prefixes, without tokens where a prefix is missing; None if all are.

        The rows have room to grow to the given lengths.
        """
        kept, row_of = self._kept, self._rows
        self.clear()
        rows = [None if key is None else row_of.get(key) for key in keys]
        if kept is None or all(row is None for row in rows):
            return None
        return _select_and_compact(*kept, rows, lengths_B)


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


def _in_order(outputs: Sequence[Tensor], calls: Sequence[Sequence[int]]) -> Tensor:
    """Stack the outputs (G, K', ...) of several calls into (B, K, ...), with zeros on the left."""
    if len(outputs) == 1:
        return outputs[0]
    width = max(output.shape[1] for output in outputs)
    wide = [nn.functional.pad(x, (0, 0) * (x.dim() - 2) + (width - x.shape[1], 0)) for x in outputs]
    row_of = torch.tensor([row for rows in calls for row in rows]).argsort()
    return torch.cat(wide)[row_of.to(outputs[0].device)]


def _select_and_compact(
    cache: Cache, mask_BL: Tensor, row_of: Sequence[int], chosen: Sequence[int | None], grown_B: Tensor
) -> tuple[Cache, Tensor]:
    """Take some sequences, each in a row of its own, and move their tokens together over other columns.

    None makes a row without tokens.

    Otherwise actions and observations of different lengths would leave more and more holes in the cache.
    Nothing is copied if all rows stay in place and have no holes.
    """
    if list(chosen) == list(row_of) == list(range(len(mask_BL))) and bool(mask_BL.all()):
        return cache, mask_BL
    chosen_B = torch.tensor([index or 0 for index in chosen], device=mask_BL.device)
    there_B = torch.tensor([index is not None for index in chosen], device=mask_BL.device)
    rows_B = torch.tensor(list(row_of), device=mask_BL.device)[chosen_B]
    mask_BL = mask_BL[chosen_B] & there_B[:, None]
    lengths_B = mask_BL.sum(1)
    width = int(lengths_B.max())
    room = int((grown_B.to(lengths_B.device) - lengths_B).max())
    # A stable sort by "is a hole" moves each row's tokens to the left, in order.
    columns_BL = torch.argsort((~mask_BL).to(torch.uint8), dim=1, stable=True)[:, :width]
    for layer in cache.layers:
        layer.select(rows_B, columns_BL, room=room)
    kept = torch.arange(width, device=mask_BL.device)[None] < lengths_B[:, None]
    return cache, kept
