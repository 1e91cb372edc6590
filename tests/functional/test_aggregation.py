"""Step scores to one trajectory score."""

from __future__ import annotations

import numpy as np
import pytest

from rlprm.errors import ConfigError, DataError
from rlprm.functional.aggregation import AGGREGATIONS, aggregate


@pytest.mark.parametrize(
    ("name", "expected"),
    [("last", 0.4), ("min", 0.2), ("mean", 0.4), ("product", 0.048)],
)
def test_by_hand(name: str, expected: float) -> None:
    # .6, .2, .4: last .4, smallest .2, mean 1.2 / 3 = .4, product .048
    score = AGGREGATIONS[name]([0.6, 0.2, 0.4])
    assert score == pytest.approx(expected, abs=1e-12)
    assert type(score) is float


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_one_step_is_its_own_score_and_arrays_are_welcome(name: str) -> None:
    assert aggregate([0.3], name) == 0.3
    assert aggregate(np.array([0.6, 0.2, 0.4]), name) == aggregate([0.6, 0.2, 0.4], name)


def test_two_negative_values_do_not_make_a_positive_product() -> None:
    assert aggregate([-0.9, -0.9], "product") == 0.0
    assert aggregate([-0.9, -0.9], "min") == -0.9


@pytest.mark.parametrize("name", AGGREGATIONS)
@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.trap("missing score")
def test_trap_a_failed_score_never_becomes_a_number(name: str, position: int, broken: float) -> None:
    scores = [0.5, 0.6, 0.7]
    scores[position] = broken
    with pytest.raises(DataError, match=f"the score of step {position + 1} of 3 is {broken}"):
        aggregate(scores, name)


@pytest.mark.parametrize("name", AGGREGATIONS)
@pytest.mark.trap("missing score")
def test_trap_a_trajectory_without_steps_has_no_score_rather_than_zero(name: str) -> None:
    with pytest.raises(DataError, match="without steps"):
        aggregate([], name)


def test_an_unknown_rule_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="unknown aggregation 'sum'; known: last, min, mean, product"):
        aggregate([0.5], "sum")
