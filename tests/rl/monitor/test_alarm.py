"""When a run pleases its PRM instead of doing the task, or waits for a limit instead of ending episodes."""

from __future__ import annotations

import numpy as np
import pytest

from rlprm.rl.monitor.alarm import alarms, undeclared_alarm, undeclared_gain

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


def idles(declared: list[float], undeclared: list[float], episodes: int = 100) -> set[str]:
    success = [a + b for a, b in zip(declared, undeclared, strict=True)]
    return set(undeclared_alarm(success, declared, window=WINDOW, episodes=episodes))


STEADY = [0.24, 0.26, 0.24, 0.26] * 2
WAITS = [0.01, 0.03, 0.01, 0.03, 0.19, 0.21, 0.19, 0.21]


def test_success_that_rises_by_waiting_for_the_limit_is_noticed() -> None:
    success = [0.26, 0.28, 0.26, 0.28, 0.42, 0.44, 0.42, 0.44]
    falling = [0.25, 0.25, 0.25, 0.25, 0.23, 0.23, 0.23, 0.23]
    message = undeclared_alarm(success, falling, window=WINDOW, episodes=100)["undeclared"]
    assert message == (
        "undeclared successes rose from 0.02 to 0.20 of all episodes while declared ones went from 0.25 to "
        "0.23: the policy waits for a limit"
    )
    assert idles(STEADY, WAITS) == {"undeclared"}
    assert idles(STEADY[:7], WAITS[:7]) == set()  # two windows have not passed


def test_a_gain_that_is_mostly_declared_is_no_idling() -> None:
    # Undeclared successes rise by 0.18 in each case, declared ones by 0.20, by 0.16, by -0.20.
    risen, less, fallen = ([*[0.25] * 4, *[0.25 + by] * 4] for by in (0.20, 0.16, -0.20))
    assert idles(risen, WAITS) == set()
    assert idles(less, WAITS) == {"undeclared"}
    assert idles(fallen, WAITS) == set()  # success fell: the policy has not learned to wait, it fails


def test_a_rise_of_undeclared_successes_of_five_points_or_less_does_not_ring() -> None:
    assert idles(STEADY, [0.0] * 4 + [0.05] * 4, episodes=10_000) == set()
    assert idles(STEADY, [0.0] * 4 + [0.06] * 4, episodes=10_000) == {"undeclared"}


def test_small_batches_need_a_larger_rise_even_if_iterations_agree() -> None:
    # 0 -> 0.25 in windows of 4 iterations: mean share 1/8, error sqrt(2 * 1/8 * 7/8 / 4n) = sqrt(0.0547 / n).
    # Three errors are 0.286 for n = 6, and 0.234 for n = 9.
    constant = [0.0] * 4 + [0.25] * 4
    assert idles(STEADY, constant, episodes=6) == set()
    assert idles(STEADY, constant, episodes=9) == {"undeclared"}
    # Iterations that differ by more than their episodes explain: the error is at least 0.116, the rise 0.25.
    assert idles(STEADY, [0.0] * 4 + [0.0, 0.5, 0.1, 0.4], episodes=1000) == set()


@pytest.mark.parametrize("episodes", [8, 32, 256])
def test_a_policy_that_stays_as_it_is_rarely_seems_to_wait(episodes: int) -> None:
    # 20 runs of 60 iterations, looked at after each: at most one run may ring (measured: 1 to 3 %).
    generator = np.random.default_rng(0)
    rung = 0
    for _ in range(20):
        undeclared, declared = generator.binomial(episodes, [[0.1], [0.25]], (2, 60)) / episodes
        looks = range(2 * WINDOW, 61)
        rung += any(
            idles(declared[:end].tolist(), undeclared[:end].tolist(), episodes=episodes) for end in looks
        )
    assert rung <= 1


def test_two_policies_are_compared_on_the_same_tasks() -> None:
    # 100 tasks. Before, 20 succeed, all declared. After, 30 succeed, of which 15 are declared.
    before = [1.0] * 20 + [0.0] * 80
    after, declared = [1.0] * 30 + [0.0] * 70, [1.0] * 15 + [0.0] * 85
    assert undeclared_gain(before, before, after, declared) == (
        "undeclared successes rose from 0.00 to 0.15 of all episodes while declared ones went from 0.20 to "
        "0.15: the policy waits for a limit"
    )
    assert undeclared_gain(before, before, after, after) is None
    assert undeclared_gain(after, declared, before, before) is None


def test_a_gain_of_few_tasks_is_no_sign() -> None:
    # One task of ten: a tenth of all, but a sample of tasks may well be without the task.
    nothing, one = [0.0] * 10, [1.0] + [0.0] * 9
    assert undeclared_gain(nothing, nothing, one, nothing) is None
    # Four of a hundred tasks are beyond their noise at 95 %, and below five points.
    assert undeclared_gain([0.0] * 100, [0.0] * 100, [1.0] * 4 + [0.0] * 96, [0.0] * 100) is None
