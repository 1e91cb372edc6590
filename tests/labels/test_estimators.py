"""The contract of label estimators; a new file in ``rlprm/labels`` is tested without being mentioned."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rlprm import labels
from rlprm.errors import ConfigError, DataError
from rlprm.functional.losses import agent_prm_loss
from rlprm.functional.masking import length_mask
from rlprm.labels import EstimatorModule, LabelBatch

LENGTHS = torch.tensor([4, 1, 2, 4])
OUTCOMES = torch.tensor([1.0, 0.0, 0.5, 0.0])


@pytest.fixture(params=labels.available())
def estimator(request: pytest.FixtureRequest) -> EstimatorModule:
    return labels.load(request.param)


def values(filler: float = 0.0) -> Tensor:
    chain = torch.rand(4, 7, generator=torch.Generator().manual_seed(0))  # two columns wider than needed
    return chain.where(length_mask(LENGTHS + 1, 7), filler)


def parts(batch: LabelBatch) -> list[Tensor]:
    return [batch.promise, batch.progress, batch.promise_weight, batch.progress_weight]


def test_the_families_helpers_are_no_estimators() -> None:
    assert labels.available() == sorted(labels.available())
    assert {"outcome", "returns", "td_gae"} <= set(labels.available())
    assert "base" not in labels.available()


def test_labels_have_the_shape_of_the_batch_and_are_finite(estimator: EstimatorModule) -> None:
    batch = estimator.label(values(), OUTCOMES, LENGTHS)
    assert [tuple(part.shape) for part in parts(batch)] == [(4, 7), (4, 6), (4, 7), (4, 6)]
    for part in parts(batch):
        assert part.dtype == torch.float32
        assert part.isfinite().all()
        assert not part.requires_grad


def test_an_estimator_without_need_of_values_ignores_them(estimator: EstimatorModule) -> None:
    if estimator.NEEDS_VALUES:
        with pytest.raises(ConfigError, match="need the values"):
            estimator.label(None, OUTCOMES, LENGTHS)
        return
    without = estimator.label(None, OUTCOMES, LENGTHS)
    assert tuple(without.promise.shape) == (4, 5)
    for a, b in zip(parts(estimator.label(values()[:, :5], OUTCOMES, LENGTHS)), parts(without), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("filler", [float("nan"), float("inf"), 1e30])
def test_padding_is_inert_and_empty(estimator: EstimatorModule, filler: float) -> None:
    clean = estimator.label(values(), OUTCOMES, LENGTHS)
    dirty = estimator.label(values(filler), OUTCOMES, LENGTHS)
    for a, b in zip(parts(clean), parts(dirty), strict=True):
        assert torch.equal(a, b)
        exists = length_mask(LENGTHS + (1 if a.shape[1] == 7 else 0), a.shape[1])
        assert a.masked_fill(exists, 0.0).eq(0).all()


def test_a_ragged_batch_equals_each_row_alone(estimator: EstimatorModule) -> None:
    together = labels.to_step_labels(estimator.label(values(), OUTCOMES, LENGTHS), LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        chain, only = values()[row : row + 1, : length + 1], slice(row, row + 1)
        alone = labels.to_step_labels(estimator.label(chain, OUTCOMES[only], LENGTHS[only]), LENGTHS[only])[0]
        assert together[row].promise == pytest.approx(alone.promise, abs=1e-6)
        assert together[row].progress == pytest.approx(alone.progress, abs=1e-6)
        assert together[row].weight == alone.weight


def test_the_last_read_is_asked_for_the_outcome(estimator: EstimatorModule) -> None:
    batch = estimator.label(values(), OUTCOMES, LENGTHS)
    rows = torch.arange(4)
    assert torch.equal(batch.promise[rows, LENGTHS], OUTCOMES)
    assert batch.promise_weight[rows, LENGTHS].gt(0).all()


@pytest.mark.trap("zero reward")
def test_trap_an_outcome_of_zero_is_a_label_like_any_other(estimator: EstimatorModule) -> None:
    # Rows 0 and 3 have the same length: the failure must weigh as much as the success, and pull down.
    batch = estimator.label(values(), OUTCOMES, LENGTHS)
    assert torch.equal(batch.promise_weight[0], batch.promise_weight[3])
    assert torch.equal(batch.progress_weight[0], batch.progress_weight[3])
    chain = torch.full((1, 5), 0.5, requires_grad=True)
    labelled = estimator.label(chain, torch.zeros(1), torch.tensor([4]))
    loss = agent_prm_loss(chain, *parts(labelled), num_links=4, beta=0.0)
    loss.total.backward()  # type: ignore[no-untyped-call]
    assert chain.grad is not None
    assert chain.grad[0, 4] > 0


def test_a_trajectory_without_steps_is_allowed(estimator: EstimatorModule) -> None:
    batch = estimator.label(torch.zeros(2, 3), torch.tensor([1.0, 1.0]), torch.tensor([0, 2]))
    for part in parts(batch):
        assert part.isfinite().all()
    assert batch.progress_weight[0].eq(0).all()
    assert batch.promise_weight[0, 1:].eq(0).all()


def test_integer_outcomes_are_numbers_too(estimator: EstimatorModule) -> None:
    for kind in (torch.long, torch.bool):
        batch = estimator.label(values(), torch.tensor([1, 0, 1, 0]).to(kind), LENGTHS)
        assert batch.promise[torch.arange(4), LENGTHS].tolist() == [1.0, 0.0, 1.0, 0.0]
        assert batch.promise.dtype == torch.float32


@pytest.mark.parametrize("outcome", [-0.1, 1.5, float("nan")])
def test_an_impossible_outcome_is_refused(estimator: EstimatorModule, outcome: float) -> None:
    with pytest.raises(DataError, match="the outcome of trajectory 1 is"):
        estimator.label(values()[:2], torch.tensor([1.0, outcome]), LENGTHS[:2])


def test_a_broken_value_is_refused_where_it_would_count(estimator: EstimatorModule) -> None:
    broken = values()
    broken[2, 1] = float("nan")
    with pytest.raises(DataError, match="the value v_1 of trajectory 2 is nan"):
        estimator.label(broken, OUTCOMES, LENGTHS)


def test_wrong_shapes_are_named(estimator: EstimatorModule) -> None:
    with pytest.raises(ValueError, match=r"lengths_B \(3,\)"):
        estimator.label(values(), OUTCOMES, LENGTHS[:3])
    with pytest.raises(ValueError, match=r"values_BT1 has shape \(3, 7\), expected \(4, 7\)"):
        estimator.label(values()[:3], OUTCOMES, LENGTHS)
    with pytest.raises(ValueError, match=r"lengths_B spans 1 \.\.\. 4, expected values in 0 \.\.\. 3"):
        estimator.label(values()[:, :4], OUTCOMES, LENGTHS)


@pytest.mark.parametrize("name", labels.available())
def test_an_unknown_setting_lists_the_allowed_ones(name: str) -> None:
    labels.check_settings(name, {})
    with pytest.raises(ConfigError, match="has no setting 'lmbda'; allowed: "):
        labels.check_settings(name, {"lmbda": 0.9})
