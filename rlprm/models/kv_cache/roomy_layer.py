"""A key-value cache with spare columns, so that appending a token does not copy all earlier ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicLayer

__all__ = ["RoomyLayer", "part_of"]

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
        old = self.get_seq_length()
        length = old + key_states.shape[-2]
        self._widen(key_states, value_states, len(key_states), length)
        self.keys[:, :, old:] = key_states
        self.values[:, :, old:] = value_states
        return self.keys, self.values

    def update_rows(
        self,
        key_states: Tensor,
        value_states: Tensor,
        *,
        rows_G: Tensor,
        start: int,
        shape: tuple[int, int],
    ) -> tuple[Tensor, Tensor]:
        """Write keys and values of some rows behind their first columns, and zeros behind what is new.

        Args:
            key_states: (G, heads, new, width).
            value_states: (G, heads, new, width).
            rows_G: the rows.
            start: number of columns of these rows that stay.
            shape: numbers of rows and columns of the whole layer once all of its rows are written.

        Returns:
            The keys and values of these rows, (G, heads, start + new, width).
        """
        self._widen(key_states, value_states, *shape)
        end = start + key_states.shape[-2]
        assert self._buffers is not None
        found = []
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[rows_G, :, start:end] = states
            # A mask does not hide values that are not finite, which a new buffer may hold.
            buffer[rows_G, :, end : shape[1]] = 0
            found.append(buffer.index_select(0, rows_G)[:, :, :end] if start else states)
        return found[0], found[1]

    # Selecting rows copies them, and room for the next columns is copied along: otherwise the next update
    # would copy everything again. The old buffers are dropped as soon as they are read, or the cache would
    # hold every layer twice until the next update.

    def select(self, rows_B: Tensor, columns_BL: Tensor, *, room: int = 0) -> None:
        """Keep some rows, and of each of them some columns, in this order.

        Args:
            rows_B: the rows.
            columns_BL: the columns of each row.
            room: number of columns that will be appended soon.
        """
        length = columns_BL.shape[1]
        # What stands in spare columns is never read.
        columns_BL = nn.functional.pad(columns_BL, (0, room + _ROOM))
        keys, values = self._taken()
        keys = _gathered(keys, rows_B, columns_BL)
        self._put((keys, _gathered(values, rows_B, columns_BL)), length)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows."""
        length = self.get_seq_length()
        if length:
            keys, values = self._taken()
            keys = keys.index_select(0, indices)
            self._put((keys, values.index_select(0, indices)), length)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row."""
        rows = torch.arange(len(self.keys), device=self.keys.device)
        self.batch_select_indices(rows.repeat_interleave(repeats))

    def _taken(self) -> tuple[Tensor, Tensor]:
        """Return the buffers, or keys and values that are no views of them, and forget the buffers."""
        buffers, self._buffers = self._buffers if self._has_room(0) else None, None
        return buffers or (self.keys, self.values)

    def _put(self, buffers: tuple[Tensor, Tensor], length: int) -> None:
        self._buffers = buffers
        self.keys, self.values = buffers[0][:, :, :length], buffers[1][:, :, :length]

    def _widen(self, key_states: Tensor, value_states: Tensor, rows: int, length: int) -> None:
        """Make keys and values so long, in new buffers if the old ones have no room left."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if not self._has_room(length):
            self._buffers = (
                _grow(self.keys, key_states, rows, length),
                _grow(self.values, value_states, rows, length),
            )
        assert self._buffers is not None
        self._put(self._buffers, length)

    def _has_room(self, length: int) -> bool:
        """Whether ``keys`` still is a view of the buffers (until it is replaced), with columns left."""
        if self._buffers is None or self.keys.data_ptr() != self._buffers[0].data_ptr():
            return False
        return length <= self._buffers[0].shape[2]


class _Part(DynamicLayer):
    """Some rows of a layer, as a cache of their own."""

    def __init__(self, whole: RoomyLayer, rows_G: Tensor, start: int, shape: tuple[int, int]) -> None:
        super().__init__()
        self.whole, self.rows_G, self.shape, self.length = whole, rows_G, shape, start

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        start, self.length = self.length, self.length + key_states.shape[-2]
        return self.whole.update_rows(
            key_states, value_states, rows_G=self.rows_G, start=start, shape=self.shape
        )

    def get_seq_length(self) -> int:
        return self.length


def part_of(cache: Cache, rows_G: Tensor, start: int, shape: tuple[int, int]) -> Cache:
    """Return some rows of a cache of :class:`RoomyLayer` as a cache of their own, for one call of a model.

    The call writes into the whole cache. After the calls of all rows the whole cache is complete.

    Args:
        cache: the whole cache; it may be empty.
        rows_G: the rows.
        start: number of columns of these rows that the call sees.
        shape: numbers of rows and columns of the whole cache once all of its rows are written.
    """
    parts = [_Part(layer, rows_G, start, shape) for layer in cache.layers]
    if parts:
        return Cache(layers=parts)

    def next_part() -> _Part:
        if len(cache.layers) == len(part.layers):
            cache.layers.append(RoomyLayer())
        return _Part(cache.layers[len(part.layers)], rows_G, start, shape)

    part = Cache(layer_class_to_replicate=next_part)
    return part


def _grow(old: Tensor, new: Tensor, rows: int, length: int) -> Tensor:
    _, heads, _, width = new.shape
    buffer = torch.empty(rows, heads, length + _ROOM, width, dtype=new.dtype, device=new.device)
    if old.numel():
        buffer[:, :, : old.shape[2]] = old
    return buffer


def _gathered(states: Tensor, rows_B: Tensor, columns_BL: Tensor) -> Tensor:
    """Return (B, heads, L, width): some columns of some rows.

    Lines of a matrix are copied as wholes. Indexing four dimensions takes 2 to 8 times as long on a CPU.
    """
    _, heads, length, width = states.shape
    heads_H1 = torch.arange(heads, device=states.device)[:, None]
    lines_BHL = (rows_B[:, None, None] * heads + heads_H1) * length + columns_BL[:, None]
    found = states.contiguous().view(-1, width).index_select(0, lines_BHL.flatten())
    return found.view(*lines_BHL.shape, width)
