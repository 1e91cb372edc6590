"""Growing, branching sequences are read as if each were read whole, for a fraction of the tokens."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from rlprm.models.heads import HEADS, LM, SCALAR
from rlprm.models.heads.lm_head import LMHead
from rlprm.models.heads.reading import read_sequences
from rlprm.models.heads.value_positions import ValuePosition
from rlprm.models.kv_cache import prefix_reader, tree
from rlprm.models.kv_cache.prefix_reader import Branch, PrefixReader
from rlprm.models.kv_cache.roomy_layer import RoomyLayer
from rlprm.models.kv_cache.support import reads_growing, reads_trees
from rlprm.models.kv_cache.tree import feed_branches
from tests.toys.heads import with_random_head

Make = Callable[[PreTrainedModel], PrefixReader]


@pytest.fixture(scope="module", params=HEADS)
def model(request: pytest.FixtureRequest, tiny_folder: Path) -> PreTrainedModel:
    return with_random_head(tiny_folder, request.param)


@pytest.fixture(params=[False, True], ids=["rows", "trees"])
def make(request: pytest.FixtureRequest) -> Make:
    return partial(PrefixReader, trees=request.param)


def grow(
    model: PreTrainedModel, parents: list[Branch], rng: np.random.Generator, *, children: int
) -> list[Branch]:
    """Continue each branch: an observation all its children share, then an action of each child's own."""
    head = LM if isinstance(model, LMHead) else SCALAR
    found = []
    for parent in parents:
        observation = rng.integers(3, 60, size=rng.integers(1, 9)).tolist()
        for child in range(children):
            action = [3 + child, *rng.integers(3, 60, size=rng.integers(0, 4)).tolist(), 2]
            stem = [*parent.ids, *observation]
            ids = [*stem, *action]
            state = ValuePosition.at(len(stem) - 1)
            chosen = ValuePosition.at(len(ids) - 1) if head == SCALAR else state._replace(stop=len(ids))
            found.append(Branch(ids, [*parent.positions, state, chosen], len(parent.ids), len(stem)))
    return found


def whole(model: PreTrainedModel, branches: list[Branch]) -> list[list[float]]:
    rows = [[i] for i in range(len(branches))]
    return read_sequences(model, [b.ids for b in branches], [b.positions for b in branches], rows)


def assert_close(found: list[list[float]], expected: list[list[float]]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a == pytest.approx(b, abs=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_every_round_reads_what_reading_from_the_beginning_reads(
    model: PreTrainedModel, make: Make, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    reader = make(model)
    branches = grow(model, [Branch([5, 6, 7], [], 0, 0), Branch([9], [], 0, 0)], rng, children=4)
    for _ in range(4):
        values, _ = reader.read(branches)
        assert_close(values, whole(model, branches))
        kept = [branches[i] for i in rng.permutation(len(branches))[:3]]
        branches = grow(model, kept, rng, children=int(rng.integers(1, 5)))
        branches = [branches[i] for i in rng.permutation(len(branches))]


def test_siblings_share_a_row_and_copy_nothing_under_a_tree_mask(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    fed: list[int] = []

    def counted(body: PreTrainedModel, cache: Cache, *args: Any, **kwargs: Any) -> Any:
        found = feed_branches(body, cache, *args, **kwargs)
        fed.append(len(cache.layers[0].keys))
        return found

    monkeypatch.setattr(prefix_reader, "feed_branches", counted)
    monkeypatch.setattr(RoomyLayer, "batch_select_indices", None)
    reader = PrefixReader(model, trees=True)
    first = grow(model, [Branch([5, 6, 7], [], 0, 0), Branch([9], [], 0, 0)], rng, children=4)
    reader.read(first)
    second = grow(model, [first[1], first[6], first[7]], rng, children=3)
    values, _ = reader.read(second)
    assert_close(values, whole(model, second))
    assert fed == [2, 3]  # rows, not branches
    # Padding would outweigh what is shared: one branch has as many tokens as ten others together.
    (lone,) = grow(model, second[:1], rng, children=1)
    long = lone._replace(ids=[*lone.ids[: lone.fork], *[7] * 60], positions=[])
    values, _ = reader.read([long, *grow(model, second[3:5], rng, children=2)])
    assert len(fed) == 2


def test_a_mask_that_would_take_much_memory_is_not_made(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    branches = grow(model, [Branch([5, 6, 7], [], 0, 0)], np.random.default_rng(0), children=4)
    fed = sum(len(b.ids) - b.fork for b in branches)
    calls: list[int] = []
    monkeypatch.setattr(
        prefix_reader, "feed_branches", lambda *a, **k: (calls.append(1), feed_branches(*a, **k))[1]
    )
    for largest, count in ((fed * (branches[0].fork + fed), 1), (fed * (branches[0].fork + fed) - 1, 0)):
        calls.clear()
        monkeypatch.setattr(prefix_reader, "_LARGEST_MASK", largest)
        values, _ = PrefixReader(model, trees=True).read(branches)
        assert_close(values, whole(model, branches))
        assert len(calls) == count


def test_a_model_is_asked_whether_trees_are_right_for_it(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reads_trees(model)
    wrong = deepcopy(model)  # as a model whose code takes no mask of four dimensions
    monkeypatch.setattr(tree, "additive", lambda sees_RQL, dtype: sees_RQL[:, 0].long())
    assert not reads_trees(wrong)
    assert reads_growing(wrong)


def test_a_round_feeds_only_what_is_new_and_what_is_common_once(model: PreTrainedModel, make: Make) -> None:
    rng = np.random.default_rng(1)
    reader = make(model)
    (root,) = [Branch(list(range(3, 43)), [], 0, 0)]
    first = grow(model, [root], rng, children=8)
    _, tokens = reader.read(first)
    assert sum(tokens) == first[0].fork + sum(len(b.ids) - b.fork for b in first)
    second = grow(model, first[:2], rng, children=4)
    _, tokens = reader.read(second)
    observations = sum(second[i].fork - second[i].parent for i in (0, 4))
    assert sum(tokens) == observations + sum(len(b.ids) - b.fork for b in second)
    assert tokens[1] == len(second[1].ids) - second[1].fork


def test_what_was_not_kept_is_read_from_the_beginning(model: PreTrainedModel, make: Make) -> None:
    rng = np.random.default_rng(2)
    reader = make(model)
    first = grow(model, [Branch([5, 6, 7], [], 0, 0)], rng, children=3)
    second = grow(model, first[:2], rng, children=2)
    unknown, tokens = reader.read(second)
    assert_close(unknown, whole(model, second))
    assert sum(tokens) > sum(len(b.ids) - b.parent for b in second)
    # Strangers among the known ones: only the strangers are read from their first token, none is mixed up.
    reader.read(first)
    _, alone = reader.read(second)
    reader.read(first)
    strangers = grow(model, [Branch([11, 12], [], 0, 0)], rng, children=2)
    mixed = [*second, *strangers]
    values, tokens = reader.read(mixed)
    assert_close(values, whole(model, mixed))
    assert tokens[: len(second)] == alone
    own = sum(len(b.ids) - b.fork for b in strangers)
    assert sum(tokens[len(second) :]) == strangers[0].fork + own


def test_parents_are_held_from_one_call_to_the_next_and_until_they_are_forgotten(
    model: PreTrainedModel,
    make: Make,
) -> None:
    rng = np.random.default_rng(3)
    reader = make(model)
    roots = [Branch(ids, [], 0, len(ids) - 1) for ids in ([5, 6, 7], [5, 6, 8])]
    assert not reader.holds(roots)
    assert not reader.holds([])
    first = grow(model, roots, rng, children=2)
    assert not reader.holds(first)
    reader.read(roots)
    assert reader.holds(first)
    assert not reader.holds([*first, roots[0]])
    reader.clear()
    assert not reader.holds(first)
    _, tokens = reader.read(first)
    assert sum(tokens) == sum(first[i].fork for i in (0, 2)) + sum(len(b.ids) - b.fork for b in first)


def test_what_two_owners_have_in_common_is_read_for_each(model: PreTrainedModel, make: Make) -> None:
    rng = np.random.default_rng(4)
    reader = make(model)
    branches = grow(model, [Branch([5, 6, 7], [], 0, 0)], rng, children=3)
    _, alone = make(model).read(branches)
    for _ in range(3):
        twice = [b._replace(owner=owner) for owner in ("a", "b") for b in branches]
        values, tokens = reader.read(twice)
        assert tokens == alone * 2
        assert_close(values, whole(model, twice))
        branches = grow(model, branches[:2], rng, children=2)
        alone = [len(b.ids) - (b.parent if i % 2 == 0 else b.fork) for i, b in enumerate(branches)]
