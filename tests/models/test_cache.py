"""The cache with room to grow holds what the stock one holds, whatever is done to it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import Cache

from rlprm.models.kv_cache import roomy_layer as roomy
from rlprm.models.kv_cache.roomy_layer import RoomyLayer

LAYERS = 2


def both() -> tuple[Cache, Cache]:
    return Cache(layer_class_to_replicate=RoomyLayer), DynamicCache()


def append(caches: tuple[Cache, Cache], rows: int, columns: int, generator: torch.Generator) -> None:
    for layer in range(LAYERS):
        keys, values = (torch.randn(rows, 3, columns, 4, generator=generator) for _ in range(2))
        answers = [cache.update(keys, values, layer) for cache in caches]
        assert torch.equal(answers[0][0], answers[1][0])
        assert torch.equal(answers[0][1], answers[1][1])
    assert caches[0].get_seq_length() == caches[1].get_seq_length()


def test_it_grows_like_the_stock_cache() -> None:
    generator, caches = torch.Generator().manual_seed(0), both()
    for columns in (5, *[1] * 150, 70, 1, 200, 3):
        append(caches, 2, columns, generator)


@pytest.mark.parametrize("seed", range(5))
def test_rows_can_be_selected_repeated_and_replaced_between_tokens(seed: int) -> None:
    generator, caches = torch.Generator().manual_seed(seed), both()
    rows = 3
    append(caches, rows, 7, generator)
    for turn in range(12):
        picked = torch.randint(0, rows, (1 + turn % 4,), generator=generator)
        rows = len(picked)
        if turn % 2:
            for cache in caches:
                cache.batch_select_indices(picked)
        else:  # as the policy does: new tensors put in the place of the old
            for cache in caches:
                for layer in cache.layers:
                    layer.keys, layer.values = layer.keys[picked][:, :, 1:], layer.values[picked][:, :, 1:]
        for columns in (1, 1, 6):
            append(caches, rows, columns, generator)


@pytest.mark.parametrize("has_buffers", [True, False])
def test_selected_columns_of_selected_rows_stay_in_place_while_others_follow(has_buffers: bool) -> None:
    generator, caches = torch.Generator().manual_seed(0), both()
    append(caches, 3, 9, generator)
    rows_B = torch.tensor([2, 0, 0, 1])
    columns_BL = torch.randint(0, 9, (4, 5), generator=generator)
    for ours, stock in zip(caches[0].layers, caches[1].layers, strict=True):
        if not has_buffers:
            ours.keys, ours.values = ours.keys.clone(), ours.values.clone()
        ours.select(rows_B, columns_BL, room=100)
        for name in ("keys", "values"):
            whole = getattr(stock, name)
            chosen = [whole[row][:, at] for row, at in zip(rows_B.tolist(), columns_BL, strict=True)]
            setattr(stock, name, torch.stack(chosen))
    append(caches, 4, 100, generator)
    places = [layer.keys.data_ptr() for layer in caches[0].layers]
    for _ in range(roomy._ROOM):
        append(caches, 4, 1, generator)
    assert [layer.keys.data_ptr() for layer in caches[0].layers] == places


def test_a_token_is_written_in_place_while_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    grown: list[int] = []
    grow = roomy._grow

    def counted(old: Tensor, new: Tensor, rows: int, length: int) -> Tensor:
        grown.append(length)
        return grow(old, new, rows, length)

    monkeypatch.setattr(roomy, "_grow", counted)
    layer = RoomyLayer()
    one = torch.ones(2, 1, 1, 4)
    for _ in range(200):
        layer.update(one, one)
    assert len(grown) <= 2 * (200 // 64 + 1)
    assert layer.get_seq_length() == 200
