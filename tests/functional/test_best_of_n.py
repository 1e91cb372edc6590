"""Exact best-of-k against enumeration of all subsets."""

from __future__ import annotations

import math
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlprm.errors import ConfigError, DataError
from rlprm.functional.best_of_n import (
    best_of_k,
    best_of_k_curve,
    expected_cost,
    oracle_at_k,
    pass_at_k,
    until_accepted_curve,
    win_probabilities,
)


def by_enumeration(scores: list[float], rewards: list[float], k: int) -> float:
    outcomes = []
    for drawn in combinations(range(len(scores)), k):
        best = max(scores[i] for i in drawn)
        tied = [rewards[i] for i in drawn if scores[i] == best]
        outcomes.append(sum(tied) / len(tied))
    return sum(outcomes) / len(outcomes)


def test_by_hand() -> None:
    # n = 4, k = 2: C(4, 2) = 6 pairs; ranks win 3, 2, 1, 0 of them.
    # Scores .9 .7 .5 .1 with rewards 0 1 .5 1: (3·0 + 2·1 + 1·.5) / 6
    assert win_probabilities(4, 2) == pytest.approx([3 / 6, 2 / 6, 1 / 6, 0.0])
    assert best_of_k([0.5, 0.9, 0.1, 0.7], [0.5, 0.0, 1.0, 1.0], 2) == pytest.approx(2.5 / 6)


def test_ties_by_hand() -> None:
    # Two candidates tied at the top with rewards 1 and 0, a third below with 0; k = 2:
    # pairs (a, b): ½;  (a, c): 1;  (b, c): 0
    assert best_of_k([2.0, 2.0, 1.0], [1.0, 0.0, 0.0], 2) == pytest.approx(0.5)


pools = st.lists(
    st.tuples(st.sampled_from((-1.0, 0.0, 0.5, 2.0)), st.floats(0.0, 1.0)), min_size=1, max_size=7
)


@settings(max_examples=150, deadline=None)
@given(pools, st.data())
def test_equals_enumeration_with_ties_and_graded_rewards(
    pool: list[tuple[float, float]], data: st.DataObject
) -> None:
    scores, rewards = [score for score, _ in pool], [reward for _, reward in pool]
    k = data.draw(st.integers(1, len(pool)))
    assert best_of_k(scores, rewards, k) == pytest.approx(by_enumeration(scores, rewards, k), abs=1e-12)
    assert oracle_at_k(rewards, k) == pytest.approx(by_enumeration(rewards, rewards, k), abs=1e-12)


def test_the_smallest_and_the_largest_budget() -> None:
    scores, rewards = [0.3, 0.1, 0.9, 0.9], [1.0, 0.0, 0.25, 0.75]
    assert best_of_k(scores, rewards, 1) == pytest.approx(0.5)  # the mean
    assert best_of_k(scores, rewards, 4) == pytest.approx(0.5)  # the two tied at the top: (.25 + .75) / 2
    assert best_of_k([0.7], [0.6], 1) == 0.6


def test_constant_scores_choose_nothing() -> None:
    rewards = [1.0, 0.0, 0.0, 0.5]
    for k in range(1, 5):
        assert best_of_k([0.0] * 4, rewards, k) == pytest.approx(0.375)


@pytest.mark.parametrize(("n", "c"), [(1, 0), (1, 1), (5, 2), (8, 8), (16, 1), (64, 3)])
def test_pass_at_k_equals_the_binomials(n: int, c: int) -> None:
    for k in range(1, n + 1):
        expected = 1.0 - math.comb(n - c, k) / math.comb(n, k)
        assert pass_at_k(n, c, k) == pytest.approx(expected, abs=1e-12)
        assert oracle_at_k([1.0] * c + [0.0] * (n - c), k) == pytest.approx(expected, abs=1e-12)


def test_large_pools_neither_overflow_nor_lose_probability() -> None:
    for k in (1, 2, 64, 1500, 2999, 3000):
        weights = win_probabilities(3000, k)
        assert np.isfinite(weights).all()
        assert (weights >= 0).all()
        assert weights.sum() == pytest.approx(1.0, abs=1e-10)
    # rank 1500 at k = 2, exactly: C(1500, 1) / C(3000, 2)
    assert win_probabilities(3000, 2)[1499] == pytest.approx(1500 / math.comb(3000, 2), rel=1e-9)
    assert pass_at_k(100_000, 1, 50_000) == pytest.approx(0.5)


def test_a_curve_holds_the_single_values() -> None:
    scores, rewards = [0.3, 0.1, 0.9, 0.3], [1.0, 0.0, 0.0, 1.0]
    curve = best_of_k_curve(scores, rewards, [1, 2, 4])
    assert curve == {k: best_of_k(scores, rewards, k) for k in (1, 2, 4)}


def test_impossible_questions_are_refused() -> None:
    with pytest.raises(ConfigError, match="best of 3 cannot be drawn from a pool of 2"):
        best_of_k([1.0, 2.0], [0.0, 1.0], 3)
    with pytest.raises(ConfigError, match="best of 0"):
        pass_at_k(4, 1, 0)
    with pytest.raises(DataError, match="at least one candidate"):
        best_of_k([], [], 1)
    with pytest.raises(DataError, match="5 successes among 4"):
        pass_at_k(4, 5, 1)
    with pytest.raises(ValueError, match=r"scores_N has shape \(2,\) and rewards_N \(3,\)"):
        best_of_k([1.0, 2.0], [0.0, 1.0, 1.0], 1)


@pytest.mark.trap("missing score")
def test_trap_a_missing_score_or_reward_is_not_ranked() -> None:
    with pytest.raises(DataError, match="the score of candidate 1 is NaN"):
        best_of_k([1.0, float("nan")], [0.0, 1.0], 1)
    with pytest.raises(DataError, match="the reward of candidate 0 is NaN"):
        best_of_k([1.0, 2.0], [float("nan"), 1.0], 1)


def until_accepted_by_enumeration(
    scores: list[float], rewards: list[float], accepted: list[bool], k: int, shared: list[set[int]]
) -> tuple[float, list[float]]:
    """Mean reward over all orders, and how often any candidate of each set is drawn."""
    orders = list(permutations(range(len(scores))))
    total, drawn_of = 0.0, [0] * len(shared)
    for order in orders:
        stop = next((i for i in range(k) if accepted[order[i]]), None)
        drawn = order[:k] if stop is None else order[: stop + 1]
        if stop is None:
            best = max(scores[i] for i in drawn)
            tied = [rewards[i] for i in drawn if scores[i] == best]
            total += sum(tied) / len(tied)
        else:
            total += rewards[drawn[-1]]
        for index, candidates in enumerate(shared):
            drawn_of[index] += bool(candidates & set(drawn))
    return total / len(orders), [count / len(orders) for count in drawn_of]


def test_sampling_until_acceptance_by_hand() -> None:
    # Three candidates, one accepted, two draws at most. The accepted one is drawn in 2 of 3 cases. Of the
    # unaccepted ones, the first is drawn unless the accepted one comes first (1/3) or after the other (1/6).
    assert expected_cost(3, 2, {(0, 1): 1.0}, 1) == pytest.approx(2 / 3)
    assert expected_cost(3, 2, {(1, 0): 1.0}, 1) == pytest.approx(1 / 2)
    # Both unaccepted ones share 6 steps: they are taken unless the accepted one comes first.
    assert expected_cost(3, 2, {(2, 0): 6.0, (0, 1): 3.0}, 1) == pytest.approx(6 * 2 / 3 + 3 * 2 / 3)
    # Without acceptance the better of the two unaccepted ones, here the last, is the result.
    rewards = until_accepted_curve([9.0, 1.0, 2.0], [1.0, 0.0, 0.25], [True, False, False], [1, 2, 3])
    assert rewards == pytest.approx({1: 1.25 / 3, 2: 2 / 3 + 0.25 / 3, 3: 1.0})


@settings(max_examples=120, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from((0.0, 0.5, 1.0)), st.floats(0.0, 1.0), st.booleans()),
        min_size=1,
        max_size=6,
    ),
    st.data(),
)
def test_sampling_until_acceptance_equals_enumeration(
    pool: list[tuple[float, float, bool]], data: st.DataObject
) -> None:
    scores, rewards, accepted = map(list, zip(*pool, strict=True))
    n, k = len(pool), data.draw(st.integers(1, len(pool)))
    shared = data.draw(st.lists(st.sets(st.integers(0, n - 1), min_size=1), min_size=1, max_size=4))
    reward, drawn = until_accepted_by_enumeration(scores, rewards, accepted, k, shared)
    assert until_accepted_curve(scores, rewards, accepted, [k])[k] == pytest.approx(reward, abs=1e-12)
    for candidates, share in zip(shared, drawn, strict=True):
        of_accepted = sum(accepted[i] for i in candidates)
        cost = expected_cost(n, k, {(len(candidates) - of_accepted, of_accepted): 2.0}, sum(accepted))
        assert cost == pytest.approx(2.0 * share, abs=1e-12)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_without_accepted_candidates_all_k_are_drawn(k: int) -> None:
    scores, rewards = [0.3, 0.1, 0.9, 0.9, 0.2], [1.0, 0.0, 0.25, 0.75, 0.5]
    assert until_accepted_curve(scores, rewards, [False] * 5, [k]) == pytest.approx(
        {k: best_of_k(scores, rewards, k)}
    )
    for sharing in range(1, 6):
        assert expected_cost(5, k, {(sharing, 0): 1.0}) == pytest.approx(pass_at_k(5, sharing, k))


def test_if_the_highest_scores_are_accepted_the_reward_is_that_of_best_of_k() -> None:
    scores, rewards = [1.0, 1.0, 0.5, 0.0, 0.5, 1.0], [1.0, 0.0, 0.3, 0.0, 1.0, 1.0]
    accepted = [score == 1.0 for score in scores]
    assert until_accepted_curve(scores, rewards, accepted, range(1, 7)) == pytest.approx(
        best_of_k_curve(scores, rewards, range(1, 7))
    )


def test_costs_of_more_candidates_than_there_are_are_refused() -> None:
    for sharing, accepted in (((3, 0), 2), ((0, 3), 2), ((0, 1), 0)):
        with pytest.raises(DataError, match="candidates share a cost"):
            expected_cost(4, 1, {sharing: 1.0}, accepted)
    with pytest.raises(ConfigError, match="best of 5"):
        expected_cost(4, 5, {})
