"""A policy that waits for a limit instead of ending its episodes."""

from __future__ import annotations

import numpy as np
import pytest

from rlprm.rl.monitor.undeclared import undeclared_alarm, undeclared_gain

WINDOW = 4


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
