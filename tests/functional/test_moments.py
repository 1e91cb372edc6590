"""Moments from sums, whitening, explained variance."""

from __future__ import annotations

import math

import pytest
import torch

from rlprm.errors import DataError
from rlprm.functional.moments import Moments, explained_variance, moment_sums, moments, whiten

NAN = float("nan")


def test_moments_by_hand_ignore_what_is_masked() -> None:
    # 1, 2, 6: mean 3, variance (4 + 1 + 9) / 3
    sums = moment_sums(torch.tensor([[1.0, 2.0, NAN], [6.0, NAN, NAN]]), torch.tensor([[1, 1, 0], [1, 0, 0]]))
    assert sums.tolist() == [3, 9, 41]
    found = moments(sums)
    assert found.mean == 3
    assert found.std == pytest.approx(math.sqrt(14 / 3))


def test_sums_of_parts_add_up_to_those_of_the_whole() -> None:
    x = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    mask = torch.rand(8, 5, generator=torch.Generator().manual_seed(1)) > 0.3
    parts = moment_sums(x[:3], mask[:3]) + moment_sums(x[3:], mask[3:])
    torch.testing.assert_close(parts, moment_sums(x, mask))
    assert moments(parts).mean == pytest.approx(float(x[mask].mean()), abs=1e-6)
    assert moments(parts).std == pytest.approx(float(x[mask].std(correction=0)), abs=1e-6)


def test_whitened_entries_have_mean_zero_and_deviation_one() -> None:
    x = 3.0 + 2.0 * torch.randn(50, 4, generator=torch.Generator().manual_seed(2))
    mask = torch.rand(50, 4, generator=torch.Generator().manual_seed(3)) > 0.5
    white = whiten(x.where(mask, NAN), mask, moments(moment_sums(x, mask)))
    again = moments(moment_sums(white, mask))
    assert again.mean == pytest.approx(0.0, abs=1e-6)
    assert again.std == pytest.approx(1.0, abs=1e-5)
    assert white[~mask].eq(0).all()


def test_scaling_alone_keeps_every_sign() -> None:
    x = torch.tensor([4.0, 1.0, -1.0])
    found = whiten(x, torch.ones(3), Moments(mean=1.5, std=2.0), centre=False, eps=0.0)
    assert found.tolist() == [2.0, 0.5, -0.5]


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3, 1e5])
def test_a_constant_is_whitened_to_zero(value: float) -> None:
    x = torch.full((7,), value, dtype=torch.float64)  # rounding alone gives most of these a variance
    stats = moments(moment_sums(x, torch.ones(7)))
    assert stats.std == 0.0
    white = whiten(x, torch.ones(7), stats)
    torch.testing.assert_close(white, torch.zeros_like(white), atol=1e-4, rtol=0)


def test_no_entries_and_broken_entries_have_no_moments() -> None:
    with pytest.raises(DataError, match="no moments of 0 entries"):
        moments(moment_sums(torch.ones(2), torch.zeros(2)))
    with pytest.raises(DataError, match="no moments of 2 entries"):
        moments(moment_sums(torch.tensor([1.0, NAN]), torch.ones(2)))


def test_a_constant_that_is_only_scaled_stays_as_it_is() -> None:
    ones = torch.ones(5)
    stats = moments(moment_sums(ones, ones))
    torch.testing.assert_close(whiten(ones, ones, stats, centre=False), ones)


@pytest.mark.trap("whitening per micro-batch")
def test_trap_whitening_per_micro_batch_changes_the_balance_of_prm_and_outcome() -> None:
    # Two micro-batches: in one, some episodes succeed; in the other all fail, and only the PRM's
    # small differences are left. Whitened on its own, the second would be as loud as the first.
    outcomes_matter = torch.tensor([0.5, -0.5, 0.5, -0.5])
    only_prm = torch.tensor([0.01, -0.01, 0.01, -0.01])
    everything = torch.cat([outcomes_matter, only_prm])
    sums = moment_sums(outcomes_matter, torch.ones(4)) + moment_sums(only_prm, torch.ones(4))
    whole = whiten(everything, torch.ones(8), moments(moment_sums(everything, torch.ones(8))))
    parts = [whiten(part, torch.ones(4), moments(sums)) for part in (outcomes_matter, only_prm)]
    torch.testing.assert_close(torch.cat(parts), whole)
    assert float(parts[0][0] / parts[1][0]) == pytest.approx(50.0, rel=1e-4)

    alone = whiten(only_prm, torch.ones(4), moments(moment_sums(only_prm, torch.ones(4))))
    assert float(alone[0] / parts[1][0]) > 30  # what goes wrong when each is whitened by itself


def explained(values: list[float], returns: list[float]) -> float | None:
    v, r = torch.tensor(values), torch.tensor(returns)
    return explained_variance(moment_sums(r, torch.ones_like(r)), moment_sums(r - v, torch.ones_like(r)))


def test_explained_variance_by_hand() -> None:
    # returns 0, 1, 2: variance 2/3; errors 0, .5, 1: variance 1/6; 1 - ¼
    assert explained([0.0, 0.5, 1.0], [0.0, 1.0, 2.0]) == pytest.approx(0.75)
    assert explained([5.0, 6.0, 7.0], [0.0, 1.0, 2.0]) == pytest.approx(
        1.0
    )  # a constant offset is no variance
    assert explained([3.0, 3.0, 3.0], [0.0, 1.0, 2.0]) == pytest.approx(0.0)
    assert explained([2.0, 1.0, 0.0], [0.0, 1.0, 2.0]) == pytest.approx(-3.0)


def test_constant_returns_leave_nothing_to_explain() -> None:
    assert explained([0.0, 1.0, 2.0], [0.1, 0.1, 0.1]) is None
    assert explained([0.3], [1.0]) is None
