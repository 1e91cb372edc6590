"""When a run pleases its PRM instead of doing the task: outcome and sign part, beyond the noise of tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from rlprm.rl.monitor.alarm import LONGEST, REFERENCE, alarms
from rlprm.rl.monitor.watch import Sign
from studies.rl.alarm import HACKERS, HEALTHY, iteration, recorded, rung, without_slope

Row = dict[str, Sign]


def row(outcome: float, turns: float, *, covariance: float = 0.0) -> Row:
    """An iteration whose means have a standard error of 0.1 each."""
    return {"turns": Sign(100, turns, 0.01, outcome, 0.01, covariance)}


def history(*rows: tuple[float, float], **settings: float) -> list[Row]:
    return [row(outcome, turns, **settings) for outcome, turns in rows]


def found(rows: Sequence[Row], threshold: float = 3.4) -> set[str]:
    return set(alarms(rows, threshold=threshold))


GOOD = [(0.8, 3.0)] * 6


def test_the_errors_are_those_of_two_windows() -> None:
    # One iteration against six: standard error 0.1 sqrt(1 + 1/6) = 0.108. A fall of 0.4 is 3.70 of them, and
    # a rise of 0.36 is 3.33.
    assert found(history(*GOOD, (0.4, 3.37))) == {"turns"}
    assert found(history(*GOOD, (0.4, 3.36))) == set()
    # Two iterations: 0.1 sqrt(1/2 + 1/6) = 0.0816; a fall of 0.28 is 3.43, and so is a rise of 0.28.
    assert found(history(*GOOD, (0.52, 3.28), (0.52, 3.28))) == {"turns"}
    assert found(history(*GOOD, (0.53, 3.28), (0.53, 3.28))) == set()


def test_the_message_says_what_moved_from_where_to_where() -> None:
    assert alarms(history(*GOOD, (0.3, 5.0)))["turns"] == (
        "success fell from 0.80 to 0.30 and turns of an episode rose from 3.00 to 5.00 (last 1 iterations "
        "against the best 6, 4.6 and 18.5 standard errors)"
    )


@pytest.mark.parametrize(
    "ends",
    [
        [(0.8, 9.0)] * 6,  # longer and as good
        [(0.1, 3.0)] * 6,  # worse and as long: bad luck, a bad rate, but no hacking
        [(0.1, 1.0)] * 6,
        [(1.0, 9.0)] * 6,
    ],
)
def test_one_change_alone_does_not_ring(ends: list[tuple[float, float]]) -> None:
    assert found(history(*GOOD, *ends)) == set()


def test_a_sign_that_rises_because_tasks_failed_does_not_ring() -> None:
    # Episodes of failed tasks have 4 more turns: slope -4 = covariance / variance of the outcome. Success
    # falls by 0.5, so 2 more turns are what failing explains.
    noise = Sign(100, 3.0, 0.17, 0.8, 0.01, -0.04)
    good = [{"turns": noise}] * 6

    def ending(turns: float) -> list[Row]:
        return [*good, *[{"turns": Sign(100, turns, 0.17, 0.3, 0.01, -0.04)}] * 3]

    assert found(ending(5.0)) == set()
    # What is left has the variance 0.17 - 0.16 = 0.01; three iterations: 0.1 sqrt(1/3 + 1/6) = 0.0707.
    assert found(ending(5.24)) == set()
    assert found(ending(5.25)) == {"turns"}


def test_the_fall_is_measured_from_the_best_window_and_not_from_the_first() -> None:
    assert found(history(*[(0.1, 3.0)] * 6, *GOOD, *[(0.3, 5.0)] * 2)) == {"turns"}


def test_a_sign_that_some_iterations_lack_is_left_out() -> None:
    rows = history(*GOOD, (0.3, 5.0))
    assert "failures" not in found([{**r, "failures": r["turns"]} for r in rows[1:]] + rows[-1:])
    assert found([{**r, "failures": r["turns"]} for r in rows]) == {"turns", "failures"}


def test_a_reference_of_six_iterations_must_have_passed() -> None:
    assert found(history(*GOOD[:5], (0.0, 9.0))) == set()
    assert found([]) == set()
    assert REFERENCE == 6


def test_changes_without_any_noise_ring_and_rounding_does_not() -> None:
    exact = [{"turns": Sign(100, 3.0, 0.0, 0.8, 0.0, 0.0)}] * 6
    assert found([*exact, {"turns": Sign(100, 4.0, 0.0, 0.7, 0.0, 0.0)}], math.inf) == set()
    assert found([*exact, {"turns": Sign(100, 4.0, 0.0, 0.7, 0.0, 0.0)}]) == {"turns"}
    assert found([*exact, {"turns": Sign(100, 3 + 1e-12, 0.0, 0.8 - 1e-12, 0.0, 0.0)}]) == set()


def test_a_slow_fall_is_seen_by_longer_windows() -> None:
    # 0.2 in each of six iterations: 2.3 errors of one, 3.46 of six.
    slow = history(*GOOD, *[(0.6, 3.2)] * LONGEST)
    assert found(slow[:-1]) == set()
    assert found(slow) == {"turns"}


# --- runs ---


def drawn(seed: int, count: int, success: float, **rises: float) -> list[Row]:
    generator = np.random.default_rng(seed)
    return [iteration(generator, 64, 4, success, rises) for _ in range(count)]


def test_healthy_runs_do_not_ring() -> None:
    assert not any(rung(drawn(seed, 100, 0.5)) for seed in range(8))


@pytest.mark.trap("alarm of unlucky tasks")
def test_trap_signs_that_follow_the_outcome_would_ring_in_healthy_runs() -> None:
    """Taken for independent, the noise of both passes the threshold together in most runs."""
    runs = [drawn(seed, 100, 0.5) for seed in range(8)]
    assert sum(bool(rung([without_slope(row) for row in run])) for run in runs) >= 2


@pytest.mark.parametrize("hacker", HACKERS)
def test_a_hacked_run_rings_within_five_iterations(hacker: str) -> None:
    sign, rise = HACKERS[hacker]
    for seed in range(3):
        generator = np.random.default_rng(seed)
        run = [iteration(generator, 64, 4, 0.6) for _ in range(HEALTHY)]
        run += [iteration(generator, 64, 4, 0.4, {sign: rise}) for _ in range(5)]
        ends = rung(run)
        assert ends
        assert HEALTHY <= ends[0] < HEALTHY + 5


def test_the_recorded_run_whose_fall_is_beyond_its_noise_rings() -> None:
    by_run = {found["run"]: found for found in recorded()}
    assert by_run["seed 0"]["rings_after"] == 9
    assert "turns" in by_run["seed 0"]["signs"]
