"""Every index exactly once, little padding, and an order that is random and repeatable."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, combinations, pairwise

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from rlprm.data.batching import LengthGroupedSampler, budget_batches, call_tokens, pad_right, sized_batches

lengths_of = st.lists(st.integers(1, 60), max_size=40)


def test_rows_are_filled_up_on_the_right() -> None:
    padded = pad_right([[1, 2, 3], [], [4]], 9)
    assert padded.tolist() == [[1, 2, 3], [9, 9, 9], [4, 9, 9]]
    assert padded.dtype == torch.long


@given(lengths_of, st.integers(1, 200))
def test_batches_stay_within_the_budget_unless_one_row_alone_exceeds_it(
    lengths: list[int], budget: int
) -> None:
    batches = list(budget_batches(lengths, budget))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[i] for i in batch)
        assert len(batch) * longest <= budget or len(batch) == 1
    # Similar lengths: no batch reaches into the range of the next.
    for before, after in pairwise(batches):
        assert max(lengths[i] for i in before) <= min(lengths[i] for i in after)
        # None could have been larger by the row that opens the next.
        assert lengths[after[0]] * (len(before) + 1) > budget


@given(st.lists(st.integers(1, 60), max_size=9), st.integers(1, 200), st.integers(0, 80))
def test_batches_cost_the_least_when_a_call_costs_tokens(
    lengths: list[int], budget: int, of_call: int
) -> None:
    batches = list(budget_batches(lengths, budget, call_tokens=of_call))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    ascending = sorted(lengths)

    def cost(cuts: Sequence[int]) -> float:
        parts = [ascending[start:stop] for start, stop in pairwise([0, *cuts, len(lengths)])]
        allowed = all(len(part) * part[-1] <= budget or len(part) == 1 for part in parts if part)
        return sum(len(part) * part[-1] + of_call for part in parts if part) if allowed else math.inf

    places = range(1, len(lengths))
    ways = [cuts for count in range(len(lengths)) for cuts in combinations(places, count)]
    found = [[lengths[i] for i in batch] for batch in batches]
    assert [length for part in found for length in part] == ascending
    cuts = list(accumulate(len(part) for part in found))[:-1]
    assert cost(cuts) == min(map(cost, ways), default=0)


def test_a_gpu_gets_the_largest_batches() -> None:
    assert call_tokens(torch.device("cuda")) == math.inf
    assert 0 < call_tokens(torch.device("cpu")) < math.inf


@given(lengths_of, st.integers(1, 7))
def test_batches_of_a_fixed_size_hold_similar_lengths(lengths: list[int], size: int) -> None:
    batches = list(sized_batches(lengths, size))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(len(batch) == size for batch in batches[:-1])
    order = [lengths[i] for batch in batches for i in batch]
    assert order == sorted(order)


@given(lengths_of, st.integers(1, 7), st.integers(0, 5), st.integers(1, 3))
def test_the_sampler_visits_every_index_once_in_an_order_of_its_epoch(
    lengths: list[int], size: int, epoch: int, pool: int
) -> None:
    sampler = LengthGroupedSampler(lengths, size, seed=3, pool=pool)
    sampler.set_epoch(epoch)
    order = list(sampler)
    assert sorted(order) == list(range(len(lengths))) == list(range(len(sampler)))
    twin = LengthGroupedSampler(lengths, size, seed=3, pool=pool)
    twin.set_epoch(epoch)
    assert list(twin) == order == list(sampler)


def test_runs_of_the_sampler_have_similar_lengths_in_no_order_of_length() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 1000, (1003,), generator=generator).tolist()
    sampler = LengthGroupedSampler(lengths, 8, seed=0)
    order = [lengths[i] for i in sampler]
    batches = [order[i : i + 8] for i in range(0, len(order), 8)]
    padding = sum(max(b) * len(b) - sum(b) for b in batches) / sum(max(b) * len(b) for b in batches)
    assert padding < 0.03  # 44 % without grouping
    assert len(batches[-1]) == 3
    means = torch.tensor([sum(b) / len(b) for b in batches])
    assert torch.corrcoef(torch.stack([means, torch.arange(len(means)).float()]))[0, 1].abs() < 0.25


@pytest.mark.parametrize(("seed", "epoch"), [(0, 1), (1, 0)])
def test_another_epoch_or_seed_gives_another_order(seed: int, epoch: int) -> None:
    lengths = list(range(100))
    sampler = LengthGroupedSampler(lengths, 4, seed=seed)
    sampler.set_epoch(epoch)
    assert list(sampler) != list(LengthGroupedSampler(lengths, 4, seed=0))


def test_the_data_loader_of_a_trainer_passes_the_epoch_on() -> None:
    rows = list(range(40))
    loader = DataLoader(rows, batch_size=4, sampler=LengthGroupedSampler(rows, 4, seed=0))  # type: ignore[arg-type]
    prepared = Accelerator(cpu=True).prepare(loader)
    orders = []
    for epoch in (0, 1):
        prepared.set_epoch(epoch)
        orders.append(torch.cat(list(prepared)).tolist())
    AcceleratorState._reset_state(reset_partial_state=True)
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == rows
