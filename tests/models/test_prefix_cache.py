"""What the kept keys and values cost while they are handed on: their own bytes, once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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
    kept: PrefixCache,
    model: PreTrainedModel,
    sequences: list[list[int]],
    known: Sequence[list[int] | None] | None,
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
def test_selected_and_repeated_rows_and_room_for_more_are_all_that_is_held(
    babbler: PreTrainedModel, change: Callable[[Cache], None]
) -> None:
    cache = extend(PrefixCache(), babbler, EVEN, None).cache
    change(cache)
    assert held(cache) == own(cache, _ROOM)


@pytest.mark.parametrize("call_tokens", [0.0, 5.0, 40.0])
@pytest.mark.parametrize("seed", range(4))
def test_in_how_many_calls_rows_are_fed_changes_no_output(
    babbler: PreTrainedModel, call_tokens: float, seed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)

    def words(longest: int) -> list[int]:
        count = int(torch.randint(1, longest + 1, (1,), generator=draw))
        return torch.randint(3, 60, (count,), generator=draw).tolist()

    one, several = PrefixCache(call_tokens=math.inf), PrefixCache(call_tokens=call_tokens)
    sequences = [words(60) for _ in range(9)]
    known: list[list[int] | None] = [None] * 9
    for _ in range(4):
        both = [extend(kept, babbler, sequences, known) for kept in (one, several)]
        torch.testing.assert_close(both[0].logits, both[1].logits, atol=1e-5, rtol=0)
        assert both[0].fed_B == both[1].fed_B
        assert both[1].mask_BL.sum(1).tolist() == list(map(len, sequences))
        columns = [done.cache.get_seq_length() for done in both]
        assert columns[1] == both[1].mask_BL.shape[1] <= columns[0]
        for kept, done in zip((one, several), both, strict=True):
            kept.keep(done.cache, done.mask_BL, sequences)
        rows = torch.randint(0, 9, (9,), generator=draw).tolist()  # some twice, some not
        known = [None if row == 4 else sequences[row] for row in rows]
        sequences = [[*sequences[row], *words(30)] for row in rows]


def test_rows_of_several_calls_are_written_on_as_one_batch(babbler: PreTrainedModel) -> None:
    rows = [[5] * 3, [6] * 40, [7] * 4]
    done = extend(PrefixCache(call_tokens=0.0), babbler, rows, None)
    assert [layer.keys.shape[2] for layer in done.cache.layers] == [40] * len(done.cache.layers)
    for layer in done.cache.layers:  # columns behind a short row are masked, and hold numbers
        assert not layer.keys[0, :, 3:].any()
        assert not layer.values[0, :, 3:].any()
    mask_BL = torch.cat([done.mask_BL, torch.ones(3, 1, dtype=torch.bool)], dim=1)
    with torch.inference_mode():
        logits = babbler(
            input_ids=torch.full((3, 1), 9), attention_mask=mask_BL.long(), past_key_values=done.cache,
            position_ids=torch.tensor([[len(row)] for row in rows]),
        ).logits[:, -1]  # fmt: skip
        alone = [babbler(input_ids=torch.tensor([[*row, 9]])).logits[0, -1] for row in rows]
    torch.testing.assert_close(logits, torch.stack(alone), atol=1e-5, rtol=0)


def test_outputs_at_all_columns_stand_on_the_right(babbler: PreTrainedModel) -> None:
    rows = [[5, 6, 7], [8] * 30, [9, 10]]
    with torch.inference_mode():
        done = PrefixCache(call_tokens=0.0).extend(babbler, rows, [None] * 3, pad_id=0)
        for row, logits_KV in zip(rows, done.logits, strict=True):
            alone_LV = babbler(input_ids=torch.tensor([row])).logits[0]
            torch.testing.assert_close(logits_KV[-len(row) :], alone_LV, atol=1e-5, rtol=0)
