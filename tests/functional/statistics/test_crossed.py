"""The bootstrap over seeds and goals, against distributions that can be enumerated."""

from __future__ import annotations

import numpy as np
import pytest

from rlprm.errors import ConfigError, DataError
from rlprm.functional.statistics.bootstrap import mean_interval
from rlprm.functional.statistics.crossed import crossed_interval

ONE_PAIR = ([[0.0, 0.0], [0.0, 4.0]], [[1, 1], [1, 1]])


def test_two_seeds_and_two_goals_by_hand() -> None:
    # The second seed is drawn 0, 1, 2 times with chances ¼, ½, ¼, and so is the second goal. The mean is the
    # product of both numbers: 0, 1, 2, 4 with chances 7/16, 4/16, 4/16, 1/16.
    found = crossed_interval(*ONE_PAIR, level=0.6)
    assert found[:3] == (1.0, 0.0, 2.0)
    assert found.p == pytest.approx(2 * 7 / 16, abs=0.02)
    assert crossed_interval(*ONE_PAIR, level=0.95)[:3] == (1.0, 0.0, 4.0)


def test_differences_of_one_sign_have_the_smallest_p_value() -> None:
    assert crossed_interval([[1.0, 2.0]], [[1, 1]], resamples=999).p == pytest.approx(2 / 1000)
    assert crossed_interval([[0.0, 0.0]], [[1, 1]]).p == 1.0


def test_one_seed_leaves_the_bootstrap_over_goals() -> None:
    values = np.random.default_rng(0).random(40)
    crossed = crossed_interval([values], [np.ones(40)])
    assert crossed.mean == pytest.approx(values.mean())
    assert crossed[:3] == pytest.approx(mean_interval(values), abs=0.01)


def test_tasks_of_a_goal_count_one_by_one() -> None:
    # Goal 0 has one task with difference 1, goal 1 three tasks with 0.
    assert crossed_interval([[1.0, 0.0]], [[1, 3]]).mean == 0.25


def test_shared_goals_widen_the_interval() -> None:
    generator = np.random.default_rng(1)
    shared = np.tile(generator.normal(size=30), (10, 1))
    own = generator.normal(size=(10, 30))
    widths = []
    for values in (shared, own):
        interval = crossed_interval(values, np.ones((10, 30)))
        widths.append(interval.high - interval.low)
    assert widths[0] > 1.5 * widths[1]


def test_the_seed_decides() -> None:
    values, counts = np.random.default_rng(2).random((3, 9)), np.ones((3, 9))
    first = crossed_interval(values, counts, seed=1, resamples=300)
    assert first == crossed_interval(values, counts, seed=1, resamples=300)
    assert first != crossed_interval(values, counts, seed=2, resamples=300)


@pytest.mark.parametrize(
    ("sums", "counts", "settings", "error"),
    [
        ([[1.0, 0.0]], [[1, 0]], {}, DataError),
        ([[np.nan]], [[1]], {}, DataError),
        ([[1.0]], [[1]], {"level": 1.0}, ConfigError),
        ([[1.0]], [[1, 1]], {}, ValueError),
    ],
)
def test_what_has_no_interval_is_refused(
    sums: list[list[float]], counts: list[list[int]], settings: dict[str, float], error: type[Exception]
) -> None:
    with pytest.raises(error):
        crossed_interval(sums, counts, **settings)  # type: ignore[arg-type]
