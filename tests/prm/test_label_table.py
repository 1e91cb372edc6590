"""Which labels a run learns from, and when: the table by itself, without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rlprm import labels
from rlprm.labels.base import LabelBatch
from rlprm.prm.label_table import LabelTable
from tests.prm import toy

DATA = toy.separable(2, samples=2, seed=5)
LENGTHS_B = torch.tensor([len(t.steps) for t in DATA])
OUTCOMES_B = torch.tensor([float(t.outcome.success) for t in DATA])
VALUES_BT1 = torch.rand(len(DATA), int(LENGTHS_B.max()) + 1, generator=torch.Generator().manual_seed(0))
BATCH = (VALUES_BT1, OUTCOMES_B, LENGTHS_B)
FIELDS = ("promise", "progress", "promise_weight", "progress_weight")


@pytest.fixture
def table(tmp_path: Path) -> Any:
    return lambda stored=None, **settings: LabelTable(toy.config(tmp_path, **settings), stored)


def same(found: LabelBatch | None, expected: LabelBatch) -> bool:
    return found is not None and all(torch.equal(getattr(found, f), getattr(expected, f)) for f in FIELDS)


def inputs(index: list[int], is_real: list[bool]) -> dict[str, Tensor]:
    found = {"index": torch.tensor(index), "is_real": torch.tensor(is_real)}
    return {**found, "outcomes": OUTCOMES_B[found["index"]], "lengths": LENGTHS_B[found["index"]]}


def test_a_cold_epoch_makes_returns_and_a_warm_one_what_the_estimator_says(table: Any) -> None:
    t = table(label_estimator_kwargs={"lam": 0.8}, cold_start_epochs=2)
    found = {}
    for epoch in (1, 2, 3):
        t.start(epoch)
        found[epoch] = (t.is_cold, t.make(*BATCH))
    returns, warm = labels.load("returns").label(*BATCH), labels.load("td_gae").label(*BATCH, lam=0.8)
    assert not same(returns, warm)
    assert [is_cold for is_cold, _ in found.values()] == [True, True, False]
    assert same(found[1][1], returns)
    assert same(found[2][1], returns)
    assert same(found[3][1], warm)


def test_a_cold_start_may_end_within_an_epoch(table: Any) -> None:
    t = table(cold_start_epochs=0.5)
    t.start(1)
    found = []
    for t.progress in (0.0, 0.25, 0.1 + 0.2 + 0.2, 0.75):  # the sum is 0.5, rounded
        found.append((t.is_cold, t.is_due))
        if t.is_due:
            t.fill(*BATCH)
    assert found == [(True, False), (True, False), (False, True), (False, False)]
    t.start(2)
    assert (t.is_cold, t.is_due) == (False, True)


@pytest.mark.parametrize(
    ("settings", "due"),
    [
        ({}, [False, True, True]),
        ({"cold_start_epochs": 0}, [True, True, True]),
        ({"relabel": "batch"}, [False, False, False]),
        ({"label_estimator": "returns", "cold_start_epochs": 0}, [False, False, False]),
        ({"stored": toy.stored_labels(DATA), "cold_start_epochs": 0}, [False, False, False]),
    ],
)
def test_values_are_asked_for_only_where_an_epochs_labels_are_made_of_them(
    table: Any, settings: dict[str, Any], due: list[bool]
) -> None:
    t = table(**settings)
    found = []
    for epoch in (1, 2, 3):
        t.start(epoch)
        found.append(t.is_due)
        if t.is_due:
            t.fill(*BATCH)
            assert not t.is_due
    assert found == due


def test_a_batch_gets_its_rows_of_the_table_as_wide_as_it_is(table: Any) -> None:
    t = table(cold_start_epochs=0)
    t.start(1)
    t.fill(*BATCH)
    index = [int(LENGTHS_B.argmin()), int(LENGTHS_B.argsort()[1])]
    width = int(LENGTHS_B[index].max())
    assert width < int(LENGTHS_B.max())
    found = t.labels_of(inputs(index, [True, True]), torch.zeros(2, width + 1))
    for name in FIELDS:
        columns = width + 1 if name.startswith("promise") else width
        assert torch.equal(getattr(found, name), getattr(t.rows, name)[index, :columns])


@pytest.mark.parametrize("relabel", ["epoch", "batch"])
def test_rows_that_fill_a_batch_up_have_no_weight(table: Any, relabel: str) -> None:
    t = table(cold_start_epochs=0, relabel=relabel)
    t.start(1)
    if t.is_due:
        t.fill(*BATCH)
    index = list(range(len(DATA)))
    real = [n % 2 == 0 for n in index]
    found, whole = t.labels_of(inputs(index, real), VALUES_BT1), t.make(*BATCH)
    for name in FIELDS:
        expected = getattr(whole, name).clone()
        if name.endswith("weight"):
            assert expected[1::2].any()
            expected[1::2] = 0.0
        assert torch.equal(getattr(found, name), expected)


def test_a_resumed_epoch_has_the_labels_its_checkpoint_kept_and_no_other(table: Any, tmp_path: Path) -> None:
    t = table()
    t.start(1)
    t.save(tmp_path)
    assert not list(tmp_path.glob("*.pt"))  # a cold epoch has no table
    t.start(2)
    t.fill(*BATCH)
    t.save(tmp_path)
    resumed = table()
    for epoch, there in ((2, True), (3, False)):
        resumed.resumed_from = tmp_path
        resumed.start(epoch)
        assert resumed.is_due is not there
        assert same(resumed.rows, t.rows) is there
    resumed.resumed_from = tmp_path
    resumed.start(2)
    resumed.start(2)  # they are taken once: the next epoch 2 is that of another run
    assert resumed.rows is None
    resumed.resumed_from = tmp_path / "elsewhere"
    resumed.start(2)
    assert resumed.is_due


def test_stored_labels_stay_whatever_the_epoch_and_are_not_kept_again(table: Any, tmp_path: Path) -> None:
    stored = toy.stored_labels(DATA)
    t = table(stored, cold_start_epochs=5)
    for epoch in (1, 2):
        t.start(epoch)
        assert same(t.rows, stored.train)
        assert same(t.held_out(*BATCH), stored.held_out)
    t.save(tmp_path)
    assert not list(tmp_path.glob("*.pt"))


@pytest.mark.parametrize(
    ("label_estimator", "measure"), [("td_gae", "returns"), ("returns", "returns"), ("outcome", "outcome")]
)
def test_what_is_held_out_is_measured_against_the_same_labels_at_any_time(
    table: Any, label_estimator: str, measure: str
) -> None:
    t = table(label_estimator=label_estimator)
    expected = labels.load(measure).label(*BATCH)
    for epoch in (1, 2, 3):
        t.start(epoch)
        assert same(t.held_out(*BATCH), expected)
        assert same(t.held_out(VALUES_BT1 + epoch, OUTCOMES_B, LENGTHS_B), expected)
