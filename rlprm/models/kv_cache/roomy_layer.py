"""A key-value cache with spare columns, so that appending a token does not copy all earlier ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

_ROOM = 64
"""Spare columns of a new buffer."""


class RoomyLayer(DynamicLayer):
    """Keys and values of one layer as views of larger buffers.

    The stock layer concatenates, which copies the cache for every decoded token and on a CPU costs more
    than the model's own computation. This layer writes tokens in place and copies at every 64th only.
    Use it for inference: writing in place is not differentiable.
    """

    keys: Tensor
    values: Tensor
    _buffers: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append (B, heads, new, width) keys and values; returns all of them, (B, heads, L, width)."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        old = self.get_seq_length()
        length = old + key_states.shape[-2]
        if not self._has_room(length):
            self._buffers = (_grow(self.keys, key_states, length), _grow(self.values, value_states, length))
        assert self._buffers is not None
        keys, values = self._buffers
        keys[:, :, old:length] = key_states
        values[:, :, old:length] = value_states
        self.keys, self.values = keys[:, :, :length], values[:, :, :length]
        return self.keys, self.values

    def select(self, rows_B: Tensor, columns_BL: Tensor) -> None:
        """Keep some rows, and of each of them some columns, in this order."""
        self._buffers = None
        self.keys = self.keys.transpose(1, 2)[rows_B[:, None], columns_BL].transpose(1, 2)
        self.values = self.values.transpose(1, 2)[rows_B[:, None], columns_BL].transpose(1, 2)

    # Selecting rows copies them. The old buffers are dropped first, or the cache would hold every layer
    # twice until the next update.

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows."""
        self._buffers = None
        super().batch_select_indices(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row."""
        self._buffers = None
        super().batch_repeat_interleave(repeats)

    def _has_room(self, length: int) -> bool:
        """Whether ``keys`` still is a view of the buffers (until rows are selected), with columns left."""
        if self._buffers is None or self.keys.data_ptr() != self._buffers[0].data_ptr():
            return False
        return length <= self._buffers[0].shape[2]


def _grow(old: Tensor, new: Tensor, length: int) -> Tensor:
    rows, heads, _, width = new.shape
    buffer = torch.empty(rows, heads, length + _ROOM, width, dtype=new.dtype, device=new.device)
    if old.numel():
        buffer[:, :, : old.shape[2]] = old
    return buffer
