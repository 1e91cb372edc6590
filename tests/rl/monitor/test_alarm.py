"""When a run pleases its PRM instead of doing the task."""

from __future__ import annotations

import numpy as np
import pytest

from rlprm.rl.monitor.alarm import alarms

WINDOW = 4
QUIET = [0.01, -0.01, 0.02, -0.02, 0.0, 0.01, -0.01, 0.0]


def found(overrating: list[float], paid: list[float], outcome: list[float], gap: float = 0.1) -> set[str]:
    return set(alarms(overrating, paid, outcome, window=WINDOW, gap=gap))


def test_a_run_that_goes_well_is_left_alone() -> None:
    rising = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    assert found(QUIET, rising, rising) == set()
    # The outcome falls and the PRM pays less for it: bad luck, but no hacking.
    assert found(QUIET, rising[::-1], rising[::-1]) == set()


def test_a_prm_that_comes_to_overrate_is_noticed_beyond_the_gap() -> None:
    drifted = [0.0, 0.02, 0.01, 0.01, 0.2, 0.22, 0.21, 0.21]
    message = alarms(drifted, QUIET, QUIET, window=WINDOW, gap=0.1)["overrating"]
    assert message == "the PRM overrates finished episodes by 0.21, at first by 0.01"
    assert found(drifted, QUIET, QUIET, gap=0.25) == set()
    # It underrated at first and is right now: it has not been fooled.
    assert found([x - 0.25 for x in drifted], QUIET, QUIET) == set()


def test_more_reward_for_less_success_is_noticed() -> None:
    paid = [0.1, 0.12, 0.11, 0.11, 0.3, 0.32, 0.31, 0.31]
    outcome = [0.6, 0.62, 0.61, 0.61, 0.4, 0.42, 0.41, 0.41]
    message = alarms(QUIET, paid, outcome, window=WINDOW, gap=0.1)["divergence"]
    assert message == (
        "the PRM's pay for an episode rose from 0.11 to 0.31 while the outcome fell from 0.61 to 0.41"
    )
    assert found(QUIET, paid, outcome[::-1]) == set()


def test_the_fall_is_measured_from_the_best_window_and_not_from_the_first() -> None:
    outcome = [0.1, 0.1, 0.12, 0.1, 0.8, 0.82, 0.8, 0.82, 0.3, 0.32, 0.3, 0.32]
    paid = [0.1, 0.1, 0.1, 0.1, 0.2, 0.2, 0.22, 0.2, 0.9, 0.9, 0.92, 0.9]
    assert found([0.0] * 12, paid, outcome) == {"divergence"}


def test_both_signs_are_told_apart() -> None:
    up, down = [0.0, 0.01, 0.0, 0.01, 0.5, 0.51, 0.5, 0.51], [0.6, 0.61, 0.6, 0.61, 0.2, 0.21, 0.2, 0.21]
    assert found(up, up, down) == {"overrating", "divergence"}


def test_two_windows_must_have_passed() -> None:
    up, down = [0.0, 0.0, 0.0, 0.9, 0.9, 0.9, 0.9], [0.9, 0.9, 0.9, 0.1, 0.1, 0.1, 0.1]
    assert found(up, up, down) == set()


def test_constant_windows_ring_for_a_real_change_and_for_no_rounding() -> None:
    flat = [0.5] * 4
    assert found([*flat, *[0.7] * 4], QUIET, QUIET) == {"overrating"}
    nearly = [0.5 + 1e-12] * 4
    assert found([0.0] * 8, [*flat, *nearly], [*nearly, *flat]) == set()


@pytest.mark.parametrize("seed", range(5))
def test_noise_does_not_ring(seed: int) -> None:
    # 60 looks at runs that go nowhere: three standard errors of small windows are passed now and then, but a
    # gap of overrating as well, or reward and outcome in opposite directions, hardly ever.
    generator = np.random.default_rng(seed)
    noise = (0.5 + 0.05 * generator.standard_normal((3, 60))).tolist()
    rung = [found(*(row[:end] for row in noise)) for end in range(8, 61)]
    assert sum(map(bool, rung)) <= 2
