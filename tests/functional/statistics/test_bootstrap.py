"""Percentile bootstrap over tasks."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from rlprm.errors import ConfigError, DataError
from rlprm.functional.statistics.bootstrap import mean_interval, paired_interval, ratio_interval


def test_interval_of_two_tasks_by_hand() -> None:
    # The mean of two draws from {0, 1} is 0, ½, 1 with chances ¼, ½, ¼: the central 95 % reach both
    # ends, the central 40 % (quantiles .3 and .7) hold ½ alone.
    assert mean_interval([0.0, 1.0]) == (0.5, 0.0, 1.0)
    assert mean_interval([0.0, 1.0], level=0.4) == (0.5, 0.5, 0.5)


def test_quantiles_match_the_enumerated_distribution() -> None:
    values = [0.0, 0.1, 0.5, 0.6, 1.0]
    means = [np.mean(drawn) for drawn in product(values, repeat=len(values))]
    interval = mean_interval(values, level=0.8, resamples=20_000, seed=3)
    assert interval.mean == pytest.approx(0.44)
    assert interval.low == pytest.approx(np.quantile(means, 0.1), abs=0.021)
    assert interval.high == pytest.approx(np.quantile(means, 0.9), abs=0.021)


def test_a_large_sample_agrees_with_the_normal_interval_across_chunks() -> None:
    values = np.random.default_rng(0).normal(size=1500)  # 1,500 × 2,000 draws do not fit into one chunk
    half_width = 1.96 * values.std() / np.sqrt(len(values))
    interval = mean_interval(values, resamples=2_000)
    assert interval.low == pytest.approx(values.mean() - half_width, abs=0.15 * half_width)
    assert interval.high == pytest.approx(values.mean() + half_width, abs=0.15 * half_width)


def test_the_seed_decides() -> None:
    values = np.random.default_rng(1).random(20)
    assert mean_interval(values, resamples=200, seed=7) == mean_interval(values, resamples=200, seed=7)
    assert mean_interval(values, resamples=200, seed=7) != mean_interval(values, resamples=200, seed=8)


def test_a_higher_level_is_wider() -> None:
    values = np.random.default_rng(2).random(30)
    narrow, wide = mean_interval(values, level=0.5), mean_interval(values, level=0.99)
    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high


def test_pairing_removes_what_the_tasks_share() -> None:
    difficulty = np.random.default_rng(3).random(50)
    interval = paired_interval(difficulty + 0.25, difficulty)
    assert interval.mean == pytest.approx(0.25)
    assert interval.high - interval.low < 1e-12
    unpaired = mean_interval(difficulty + 0.25)
    assert unpaired.high - unpaired.low > 0.05


def test_paired_difference_has_its_sign() -> None:
    a, b = np.array([1.0, 1.0, 0.0, 1.0]), np.array([0.0, 1.0, 0.0, 0.0])
    assert paired_interval(a, b).mean == 0.5
    assert paired_interval(b, a).mean == -0.5


@pytest.mark.parametrize("values", [[0.1], [0.1] * 7])
def test_degenerate_samples_have_no_width(values: list[float]) -> None:
    interval = mean_interval(values)
    assert interval.low == interval.high == 0.1
    assert interval.mean == pytest.approx(0.1)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(DataError, match="values_K is empty"):
        mean_interval([])
    with pytest.raises(DataError, match=r"values_K\[1\] is nan"):
        mean_interval([0.0, float("nan")])
    with pytest.raises(ValueError, match=r"values_K has shape \(1, 2\)"):
        mean_interval([[0.0, 1.0]])
    with pytest.raises(ValueError, match="of the same tasks"):
        paired_interval([0.0, 1.0], [0.0])
    with pytest.raises(ConfigError, match="level must lie between 0 and 1, got 95"):
        mean_interval([0.0, 1.0], level=95)
    with pytest.raises(ConfigError, match="resamples"):
        mean_interval([0.0, 1.0], resamples=0)


def test_a_ratio_of_means_draws_its_tasks_together() -> None:
    # a is half of b in every task: the ratio is certain, however b varies.
    b = np.random.default_rng(0).uniform(1, 9, size=30)
    assert ratio_interval(b / 2, b) == pytest.approx((0.5, 0.5, 0.5))
    # Two tasks, drawn (1,1), (1,2) twice, (2,2): 2/1, 3/3 and 1/2; the central 40 % hold the mean's own.
    assert ratio_interval([2.0, 1.0], [1.0, 2.0], level=0.4) == (1.0, 1.0, 1.0)
    assert ratio_interval([2.0, 1.0], [1.0, 2.0]) == (1.0, 0.5, 2.0)


def test_a_ratio_to_what_may_be_nothing_has_no_interval() -> None:
    assert ratio_interval([1.0, 1.0], [0.0, 1.0]) is None
    assert ratio_interval([1.0, 1.0], [0.0, 0.0]) is None
    with pytest.raises(ValueError, match="must be of the same tasks"):
        ratio_interval([1.0], [1.0, 2.0])
