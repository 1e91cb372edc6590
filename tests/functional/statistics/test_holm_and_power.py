"""Holm's correction and the power of a t test, against published and hand-worked numbers."""

from __future__ import annotations

import pytest

from rlprm.errors import ConfigError, DataError
from rlprm.functional.statistics.holm import holm
from rlprm.functional.statistics.power import detectable_difference, power


def test_four_p_values_by_hand() -> None:
    # Ordered: .005 × 4, .01 × 3, .03 × 2, .04 × 1; the last is raised to the one before.
    corrected = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert corrected == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert list(corrected) == ["a", "b", "c", "d"]


def test_one_comparison_is_left_as_it_is_and_none_exceeds_one() -> None:
    assert holm({"a": 0.04}) == {"a": 0.04}
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def test_a_p_value_outside_its_range_is_refused() -> None:
    with pytest.raises(DataError, match="of a is"):
        holm({"a": 1.2})


def test_power_of_a_paired_t_test_is_the_tabulated_one() -> None:
    # Effect 1, 10 pairs, two-sided 5 %: .8031; effect 0.5, 34 pairs: .8078 (G*Power).
    assert power(1.0, deviation=1.0, seeds=10, alpha=0.05) == pytest.approx(0.8031, abs=5e-4)
    assert power(0.5, deviation=1.0, seeds=34, alpha=0.05) == pytest.approx(0.8078, abs=5e-4)


def test_power_without_a_difference_is_the_level() -> None:
    assert power(0.0, deviation=2.0, seeds=5, alpha=0.0125) == pytest.approx(0.0125)


def test_the_detectable_difference_is_detected_with_the_chance_asked_for() -> None:
    found = detectable_difference(deviation=4.0, seeds=10, alpha=0.0125)
    assert power(found, deviation=4.0, seeds=10, alpha=0.0125) == pytest.approx(0.8)
    assert (
        found
        > detectable_difference(deviation=4.0, seeds=10, alpha=0.05)
        == pytest.approx(4 * 0.9962, abs=4e-3)
    )


def test_the_detectable_difference_grows_with_the_deviation_and_falls_with_seeds() -> None:
    three, ten = (detectable_difference(deviation=1.0, seeds=seeds) for seeds in (3, 10))
    assert three > ten
    assert detectable_difference(deviation=3.0, seeds=10) == pytest.approx(3 * ten)
    assert detectable_difference(deviation=0.0, seeds=10) == 0.0


@pytest.mark.parametrize(("seeds", "alpha", "chance"), [(1, 0.05, 0.8), (5, 0.0, 0.8), (5, 0.05, 1.0)])
def test_impossible_settings_are_refused(seeds: int, alpha: float, chance: float) -> None:
    with pytest.raises(ConfigError):
        detectable_difference(deviation=1.0, seeds=seeds, alpha=alpha, chance=chance)
