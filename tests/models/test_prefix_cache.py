"""What the kept keys and values cost while they are handed on: their own bytes, once."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel, Qwen2ForCausalLM
from transformers.cache_utils import Cache

from rlprm.models.kv_cache.prefix_cache import Extended, PrefixCache
from rlprm.models.kv_cache.roomy_layer import _ROOM, RoomyLayer

EVEN = [[row + 5] * 200 for row in range(6)]
RAGGED = [[row + 5] * (200 - row) for row in range(6)]


@pytest.fixture(scope="module")
def deep(babbler: PreTrainedModel) -> PreTrainedModel:
    """A model of so many layers that one of them is little of its cache."""
    config = deepcopy(babbler.config)
    config.num_hidden_layers, config.layer_types = 8, ["full_attention"] * 8
    return Qwen2ForCausalLM(config).eval()


def held(cache: Cache) -> int:
    """Bytes of all storages that a cache keeps alive, each counted once."""
    storages = {}
    for layer in cache.layers:
        for value in vars(layer).values():
            for each in value if isinstance(value, tuple) else (value,):
                if isinstance(each, Tensor):
                    storage = each.untyped_storage()
                    storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def own(cache: Cache, columns: int = 0) -> int:
    """Bytes of a cache's keys and values, and of more columns of them."""
    return sum(
        t[:, :, :1].numel() * (t.shape[2] + columns) * t.element_size()
        for layer in cache.layers
        for t in (layer.keys, layer.values)
    )


def extend(
    kept: PrefixCache, model: PreTrainedModel, sequences: list[list[int]], known: list[list[int]] | None
) -> Extended:
    with torch.inference_mode():
        return kept.extend(model, sequences, known or [None] * len(sequences), pad_id=0, logits_to_keep=1)


@pytest.mark.parametrize("sequences", [EVEN, RAGGED], ids=["even", "ragged"])
@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 0, 0, 3, 2, 1]], ids=["in_place", "moved"])
def test_a_continued_batch_is_never_held_twice(
    deep: PreTrainedModel, sequences: list[list[int]], order: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = PrefixCache()
    first = extend(kept, deep, sequences, None)
    one_layer = own(first.cache, _ROOM) // len(first.cache.layers)
    most = own(first.cache, _ROOM) + one_layer
    seen: list[int] = []

    def watched(change: Callable[..., object]) -> Callable[..., object]:
        def call(layer: RoomyLayer, *args: object, **kwargs: object) -> object:
            answer = change(layer, *args, **kwargs)
            seen.append(held(first.cache))
            return answer

        return call

    for name in ("update", "select"):
        monkeypatch.setattr(RoomyLayer, name, watched(getattr(RoomyLayer, name)))
    kept.keep(first.cache, first.mask_BL, sequences)
    again = [sequences[row] for row in order]
    done = extend(kept, deep, [[*ids, 7, 7] for ids in again], again)
    assert done.cache is first.cache
    assert done.fed_B == [2] * len(again)
    assert max(seen) <= most
    assert held(done.cache) <= own(done.cache, _ROOM)


def test_rows_that_stay_in_place_without_holes_are_not_copied(babbler: PreTrainedModel) -> None:
    kept = PrefixCache()
    first = extend(kept, babbler, EVEN, None)
    before = [layer.keys.data_ptr() for layer in first.cache.layers]
    kept.keep(first.cache, first.mask_BL, EVEN)
    done = extend(kept, babbler, [[*ids, 7, 7] for ids in EVEN], EVEN)
    assert [layer.keys.data_ptr() for layer in done.cache.layers] == before
    whole = extend(PrefixCache(), babbler, [[*ids, 7, 7] for ids in EVEN], None)
    torch.testing.assert_close(done.logits, whole.logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "change",
    [
        lambda cache: cache.batch_select_indices(torch.tensor([1, 1, 0, 4])),
        lambda cache: cache.batch_repeat_interleave(2),
    ],
    ids=["select", "repeat"],
)
def test_selected_and_repeated_rows_are_all_that_is_held(
    babbler: PreTrainedModel, change: Callable[[Cache], None]
) -> None:
    cache = extend(PrefixCache(), babbler, EVEN, None).cache
    change(cache)
    assert held(cache) == own(cache)
