"""Growing, branching sequences are read as if each were read whole, for a fraction of the tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from rlprm.models.loading import load_scalar_model
from rlprm.models.prefix_reader import Branch, PrefixReader
from rlprm.models.scalar import read_sequences


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> PreTrainedModel:
    found = load_scalar_model(str(tiny_folder), dtype="float32").eval()
    head = found.score.weight
    head.data.copy_(0.3 * torch.randn(head.shape, generator=torch.Generator().manual_seed(0)))
    return found


def grow(parents: list[Branch], rng: np.random.Generator, *, children: int) -> list[Branch]:
    """Continue each branch: an observation all its children share, then an action of each child's own."""
    found = []
    for parent in parents:
        observation = rng.integers(3, 60, size=rng.integers(1, 9)).tolist()
        for child in range(children):
            action = [3 + child, *rng.integers(3, 60, size=rng.integers(0, 4)).tolist(), 2]
            stem = [*parent.ids, *observation]
            ids = [*stem, *action]
            positions = [*parent.positions, len(stem) - 1, len(ids) - 1]
            found.append(Branch(ids, positions, len(parent.ids), len(stem)))
    return found


def whole(model: PreTrainedModel, branches: list[Branch]) -> list[list[float]]:
    rows = [[i] for i in range(len(branches))]
    return read_sequences(model, [b.ids for b in branches], [b.positions for b in branches], rows)


def assert_close(found: list[list[float]], expected: list[list[float]]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a == pytest.approx(b, abs=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_every_round_reads_what_reading_from_the_beginning_reads(model: PreTrainedModel, seed: int) -> None:
    rng = np.random.default_rng(seed)
    reader = PrefixReader(model)
    branches = grow([Branch([5, 6, 7], [], 0, 0), Branch([9], [], 0, 0)], rng, children=4)
    for _ in range(4):
        values, _ = reader.read(branches)
        assert_close(values, whole(model, branches))
        kept = [branches[i] for i in rng.permutation(len(branches))[:3]]
        branches = grow(kept, rng, children=int(rng.integers(1, 5)))
        branches = [branches[i] for i in rng.permutation(len(branches))]


def test_a_round_feeds_only_what_is_new_and_what_is_common_once(model: PreTrainedModel) -> None:
    rng = np.random.default_rng(1)
    reader = PrefixReader(model)
    (root,) = [Branch(list(range(3, 43)), [], 0, 0)]
    first = grow([root], rng, children=8)
    _, tokens = reader.read(first)
    assert sum(tokens) == first[0].fork + sum(len(b.ids) - b.fork for b in first)
    second = grow(first[:2], rng, children=4)
    _, tokens = reader.read(second)
    observations = sum(second[i].fork - second[i].parent for i in (0, 4))
    assert sum(tokens) == observations + sum(len(b.ids) - b.fork for b in second)
    assert tokens[1] == len(second[1].ids) - second[1].fork


def test_what_was_not_kept_is_read_from_the_beginning(model: PreTrainedModel) -> None:
    rng = np.random.default_rng(2)
    reader = PrefixReader(model)
    first = grow([Branch([5, 6, 7], [], 0, 0)], rng, children=3)
    second = grow(first[:2], rng, children=2)
    unknown, tokens = reader.read(second)
    assert_close(unknown, whole(model, second))
    assert sum(tokens) > sum(len(b.ids) - b.parent for b in second)
    # One stranger among the known ones: all of them are read whole, and none is mixed up.
    reader.read(first)
    mixed = [*second, *grow([Branch([11, 12], [], 0, 0)], rng, children=2)]
    values, _ = reader.read(mixed)
    assert_close(values, whole(model, mixed))
