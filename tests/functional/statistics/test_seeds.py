"""Intervals over seeds: hand-worked numbers, and how often they hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlprm.errors import ConfigError, DataError
from rlprm.functional.statistics.seeds import seed_interval


def test_three_seeds_by_hand() -> None:
    found = seed_interval([1.0, 2.0, 3.0])
    assert found is not None
    half_width = 4.302653 / math.sqrt(3)  # t(2) at 97.5 %, deviation 1
    assert found.mean == 2.0
    assert found.deviation == 1.0
    assert (found.low, found.high) == pytest.approx((2 - half_width, 2 + half_width), abs=1e-6)
    t = 2.0 * math.sqrt(3)
    assert found.p == pytest.approx(1.0 - t / math.sqrt(t * t + 2.0))  # closed form with 2 degrees of freedom


def test_equal_numbers_have_the_p_value_of_the_sign_test() -> None:
    found = seed_interval([0.1, 0.1, 0.1])  # their computed deviation is not 0
    assert found is not None
    assert (found.low, found.high, found.deviation) == (found.mean, found.mean, 0.0)
    assert found.p == 0.25
    zeros = seed_interval([0.0, 0.0])
    assert zeros is not None
    assert zeros.p == 1.0


def test_one_seed_has_no_interval() -> None:
    assert seed_interval([0.3]) is None


def test_equal_seeds_have_an_interval_of_no_width() -> None:
    found = seed_interval([0.25, 0.25])
    assert found is not None
    assert (found.low, found.high) == (0.25, 0.25)


@pytest.mark.parametrize(
    ("values", "level", "error"),
    [([], 0.95, DataError), ([math.nan], 0.95, DataError), ([1.0], 1.0, ConfigError)],
)
def test_what_has_no_interval_is_refused(values: list[float], level: float, error: type[Exception]) -> None:
    with pytest.raises(error):
        seed_interval(values, level=level)


def _coverage(*, shared: bool, seeds: int = 10, tasks: int = 256, repetitions: int = 2_000) -> float:
    """Share of intervals that hold the true difference 0; tasks differ in how much they favour an arm."""
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(repetitions):
        of_tasks = generator.normal(0.0, 0.2, size=(1 if shared else seeds, tasks))
        noise = generator.normal(0.0, 0.4, size=(seeds, tasks))
        of_seeds = generator.normal(0.0, 0.015, size=(seeds, 1))
        found = seed_interval((of_seeds + of_tasks + noise).mean(axis=1))
        assert found is not None
        covered += found.low <= 0.0 <= found.high
    return covered / repetitions


def test_the_interval_covers_the_luck_of_tasks_if_each_seed_has_its_own() -> None:
    assert _coverage(shared=False) == pytest.approx(0.95, abs=0.015)


def test_the_interval_is_too_narrow_if_seeds_share_their_tasks() -> None:
    assert _coverage(shared=True) < 0.85
