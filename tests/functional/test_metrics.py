"""AUC, calibration and rank correlation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from rlprm.errors import ConfigError, DataError
from rlprm.functional.metrics import (
    auc,
    auc_by_index,
    auc_by_relative_position,
    binomial_variance,
    calibration,
    clearly_different,
    pairwise_accuracy,
    spearman,
)


def test_auc_by_hand() -> None:
    # successes .8 .4, failures .4 .1: pairs .8>.4, .8>.1, .4=.4 (½), .4>.1: 3.5 of 4
    assert auc([0.8, 0.4, 0.4, 0.1], [1, 1, 0, 0]) == 3.5 / 4


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from((0.0, 0.1, 0.5, 3.0)), st.booleans()), min_size=2, max_size=12))
def test_auc_equals_scikit_learn(sample: list[tuple[float, bool]]) -> None:
    scores, success = [score for score, _ in sample], [flag for _, flag in sample]
    if len(set(success)) == 1:
        assert auc(scores, success) is None
    else:
        assert auc(scores, success) == pytest.approx(roc_auc_score(success, scores))


@pytest.mark.trap("AUC of one class")
def test_trap_one_class_gives_no_auc_rather_than_zero_or_a_half() -> None:
    assert auc([0.1, 0.9], [1, 1]) is None
    assert auc([0.1, 0.9], [0, 0]) is None
    assert auc([], []) is None


VALUES = [[0.5, 0.6, 0.9], [0.5, 0.2], [0.7, 0.4], [0.6]]
SUCCESS = [1, 0, 1, 0]


def test_auc_by_index_by_hand() -> None:
    # t = 1: successes .5 .7 against .5 .6: ½ + 0 + 1 + 1 of 4;  t = 2: .6 .4 against .2: 2 of 2
    # t = 3: one success is left
    points = auc_by_index(VALUES, SUCCESS)
    assert points == [(1.0, 2.5 / 4, 2, 2), (2.0, 1.0, 2, 1), (3.0, None, 1, 0)]
    assert auc_by_index([], []) == []


def test_auc_by_relative_position_by_hand() -> None:
    # 2 bins. T = 3: t / T = 1/3 | 2/3, 1 -> .5 | mean(.6, .9) = .75;  T = 2: ½ | 1;  T = 1: - | 1
    # bin 1: successes .5 .7 against .5: 1.5 of 2;  bin 2: .75 .4 against .2 .6: 1 + 1 + 1 + 0 of 4
    points = auc_by_relative_position(VALUES, SUCCESS, bins=2)
    assert points == [(0.5, 0.75, 2, 1), (1.0, 0.75, 2, 2)]


def test_last_steps_share_the_last_bin_whatever_the_length() -> None:
    values = [[0.0] * (length - 1) + [float(length % 2)] for length in range(1, 40)]
    points = auc_by_relative_position(values, [length % 2 for length in range(1, 40)], bins=50)
    assert points[-1] == (1.0, 1.0, 20, 19)


def test_a_trajectory_without_steps_is_in_no_bin() -> None:
    assert auc_by_relative_position([[], [0.5]], [1, 0], bins=1) == [(1.0, None, 0, 1)]
    assert auc_by_index([[], [0.5]], [1, 0]) == [(1.0, None, 0, 1)]


def test_calibration_by_hand() -> None:
    # 2 bins of [0, 1]: .2 (0) .4 (1) | .5 (1) 1 (1) 1.5 -> 1 (0)
    #   first: mean .3, rate ½;  second: mean 2.5/3, rate 2/3
    #   ECE = (|1 - .6| + |2 - 2.5|) / 5 = .18;  Brier = (.04 + .36 + .25 + 0 + 1) / 5 = .33
    result = calibration([0.2, 0.4, 0.5, 1.0, 1.5], [0, 1, 1, 1, 0], bins=2)
    assert [(part.low, part.high, part.size) for part in result.bins] == [(0.0, 0.5, 2), (0.5, 1.0, 3)]
    assert [part.mean_value for part in result.bins] == pytest.approx([0.3, 2.5 / 3])
    assert [part.success_rate for part in result.bins] == pytest.approx([0.5, 2 / 3])
    assert result.expected_error == pytest.approx(0.18)
    assert result.brier == pytest.approx(0.33)


def test_values_below_zero_count_as_zero_and_empty_bins_say_so() -> None:
    result = calibration([-0.5, 0.95], [0, 1], bins=10)
    assert result.bins[0] == (0.0, 0.1, 1, 0.0, 0.0)
    assert result.bins[4].mean_value is None
    assert result.bins[4].success_rate is None
    assert result.expected_error == pytest.approx(0.025)


@pytest.mark.parametrize("edge", [i / 10 for i in range(11)])
def test_every_bin_edge_falls_into_one_bin(edge: float) -> None:
    result = calibration([edge], [1], bins=10)
    (part,) = [part for part in result.bins if part.size]
    assert part.low - 1e-9 <= edge <= part.high + 1e-9


def test_spearman_by_hand_and_against_scipy() -> None:
    assert spearman([1.0, 2.0, 3.0], [10.0, 200.0, 3000.0]) == pytest.approx(1.0)
    assert spearman([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == pytest.approx(-1.0)
    a, b = [1.0, 1.0, 2.0, 5.0, 4.0], [0.3, 0.1, 0.1, 0.9, 0.2]
    assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert spearman([1.0, 1.0], [0.0, 1.0]) is None


def test_the_variance_of_a_share_is_estimated_without_bias() -> None:
    # All outcomes of 3 flags of chance .3: the estimates' mean is the true variance .3 · .7 / 3.
    n, p = 3, 0.3
    weights = [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
    estimates = binomial_variance([k / n for k in range(n + 1)], [n] * (n + 1))
    assert weights @ estimates == pytest.approx(p * (1 - p) / n)
    assert binomial_variance([0.5, 1.0], [0, 1]).tolist() == [0.0, 0.0]


def test_shares_differ_clearly_beyond_two_standard_errors() -> None:
    # 0 and 5 of 32: (1/34, 6/34), standard error .0714, twice that .143 < 5/32; 0 and 4 of 32: .1345 > 4/32.
    apart = clearly_different([0.0, 5 / 32, 4 / 32], [32, 32, 32])
    assert apart.tolist() == [[False, True, False], [True, False, False], [False, False, False]]
    assert clearly_different([0.0, 0.01], [0, 0]).tolist() == [[False, True], [True, False]]
    assert not clearly_different([0.0, 5 / 32], [32, 32], standard_errors=3.0).any()


def test_pairwise_accuracy_by_hand() -> None:
    every = ~np.eye(3, dtype=bool)
    # values order 0 < 1 < 2; the scores get 0-1 right, tie 1-2 (one half) and get 0-2 right
    assert pairwise_accuracy([0.1, 0.4, 0.4], [0.0, 0.5, 1.0], every) == pytest.approx(2.5 / 3)
    only = np.zeros((3, 3), dtype=bool)
    only[0, 2] = only[2, 0] = True
    assert pairwise_accuracy([0.9, 0.4, 0.4], [0.0, 0.5, 1.0], only) == 0.0
    assert pairwise_accuracy([0.9, 0.4, 0.4], [0.0, 0.5, 1.0], ~every) is None


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match=r"pairs \(2, 2\)"):
        pairwise_accuracy([0.1, 0.2, 0.3], [1.0, 2.0, 3.0], np.ones((2, 2), dtype=bool))
    with pytest.raises(DataError, match=r"means must lie in 0 \.\.\. 1"):
        binomial_variance([1.5], [3])
    with pytest.raises(ValueError, match="expected the same"):
        clearly_different([0.5], [3, 4])
    with pytest.raises(DataError, match=r"scores\[1\] is nan"):
        auc([0.1, float("nan")], [0, 1])
    with pytest.raises(DataError, match="success must be 0 or 1"):
        auc([0.1, 0.2], [0.5, 1.0])
    with pytest.raises(ValueError, match=r"success has shape \(3,\), expected \(2,\)"):
        auc([0.1, 0.2], [0, 1, 1])
    with pytest.raises(DataError, match=r"values\[0\]\[1\] is nan"):
        auc_by_relative_position([[0.1, float("nan")]], [1])
    with pytest.raises(DataError, match="no values to calibrate"):
        calibration([], [])
    with pytest.raises(ConfigError, match="bins must be at least 1"):
        calibration([0.5], [1], bins=0)
    with pytest.raises(ValueError, match="expected the same"):
        spearman([1.0], [1.0, 2.0])
    with pytest.raises(DataError, match="no values to correlate"):
        spearman([], [])
