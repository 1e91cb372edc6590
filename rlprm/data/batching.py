"""Putting sequences of similar length together, so that little is padded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler


def pad_right(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    """Stack rows into (B, longest), filled up on the right."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows], dtype=torch.long)


def budget_batches(
    lengths: Sequence[int], token_budget: float, *, call_tokens: float = math.inf
) -> Iterator[list[int]]:
    """Split indices into batches of similar length whose padded size stays within a budget of tokens.

    A single sequence longer than the budget is a batch of its own.

    Args:
        lengths: of the sequences, in tokens.
        token_budget: the most padded tokens of a batch.
        call_tokens: padding that costs as much as one more batch, see :func:`call_tokens`. The batches then
            cost the least, padding and calls together. If it is infinite, each batch is as large as possible.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    if math.isfinite(call_tokens):
        cuts = _cheapest_cuts([lengths[index] for index in order], token_budget, call_tokens)
        yield from (order[start:stop] for start, stop in pairwise(cuts))
        return
    batch: list[int] = []
    for index in order:
        if batch and lengths[index] * (len(batch) + 1) > token_budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def micro_batches(
    rows: Sequence[int],
    widths: Sequence[int],
    *,
    token_budget: int,
    call_tokens: float = math.inf,
    rank: int = 0,
    processes: int = 1,
) -> Iterator[list[int]]:
    """Split rows into what one process takes forward at a time.

    Rows of similar length are dealt out to the processes in turn, so that all have about equal work. Every
    process gets as many micro-batches as the others (an empty one once its rows have run out):
    a collective that one of them leaves out would wait forever.

    Args:
        rows: indices of the complete update, over all processes.
        widths: tokens of every row of the batch.
        token_budget: padded tokens of a micro-batch; a longer row has one of its own.
        call_tokens: padding that costs as much as one more micro-batch, see :func:`call_tokens`.
        rank: of this process.
        processes: how many there are.
    """
    dealt = sorted(rows, key=lambda row: (widths[row], row))
    shares = [_budgeted(dealt[r::processes], widths, token_budget, call_tokens) for r in range(processes)]
    for number in range(max(map(len, shares))):
        own = shares[rank]
        yield own[number] if number < len(own) else []


def _budgeted(
    rows: Sequence[int], widths: Sequence[int], token_budget: int, call_tokens: float
) -> list[list[int]]:
    batches = budget_batches([widths[row] for row in rows], token_budget, call_tokens=call_tokens)
    return [[rows[i] for i in batch] for batch in batches]


def call_tokens(device: torch.device) -> float:
    """Return how much padding, in tokens, costs as much as one more call of a model.

    64 tokens on a CPU were chosen with models of 0.5 million weights (docs/performance.md); other sizes were
    not measured. A GPU takes tokens side by side, and how many depends on the model and the GPU. Its batches
    are as large as their budget allows.
    """
    return 64.0 if device.type == "cpu" else math.inf


def _cheapest_cuts(sizes: Sequence[int], token_budget: float, call_tokens: float) -> list[int]:
    """Return where to cut ascending sizes into batches, 0 and the end included, by dynamic programming."""
    costs = np.zeros(len(sizes) + 1)  # of the cheapest batches of the first sizes
    starts = np.zeros(len(sizes) + 1, dtype=np.int64)  # of the last of these batches
    for stop, size in enumerate(sizes, start=1):
        most = stop if size * stop <= token_budget else max(1, int(token_budget // size))
        rows = np.arange(most, 0, -1)
        totals = costs[stop - most : stop] + rows * size + call_tokens
        cheapest = int(totals.argmin())
        costs[stop], starts[stop] = totals[cheapest], stop - most + cheapest
    cuts = [len(sizes)]
    while cuts[-1] > 0:
        cuts.append(int(starts[cuts[-1]]))
    return cuts[::-1]


def sized_batches(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Split indices into batches of similar length with a fixed number of rows."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


class LengthGroupedSampler(Sampler[int]):
    """Random order in which each run of ``batch_size`` indices has similar lengths.

    Indices are shuffled, sorted by length within pools of ``pool`` batches, cut
    into batches, and the batches are shuffled: unlike a plain sort, the order of
    batches says nothing about length. Each epoch gives another order; the same
    ``seed`` and epoch give the same.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, *, seed: int, pool: int = 50) -> None:
        self.lengths, self.batch_size, self.seed, self.pool = lengths, batch_size, seed, pool
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; called by the data loader."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        size = self.pool * self.batch_size
        batches: list[list[int]] = []
        for start in range(0, len(order), size):
            pool = sorted(order[start : start + size], key=self.lengths.__getitem__)
            batches += [pool[i : i + self.batch_size] for i in range(0, len(pool), self.batch_size)]
        # A short batch stays last: in the middle it would shift the borders of all that follow.
        full = [batch for batch in batches if len(batch) == self.batch_size]
        rest = [batch for batch in batches if len(batch) < self.batch_size]
        for index in torch.randperm(len(full), generator=generator).tolist():
            yield from full[index]
        for batch in rest:
            yield from batch
