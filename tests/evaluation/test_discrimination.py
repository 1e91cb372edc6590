"""Telling actions apart: scorers of known worth, numbers by hand, and what noise must not pass for."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from rlprm.errors import DataError
from rlprm.evaluation.discrimination import Discrimination, ProbedState, discrimination


def state(
    scores: list[float], values: list[float], rollouts: int = 64, frequencies: list[int] | None = None
) -> ProbedState:
    counts = tuple(frequencies or [1] * len(values))
    return ProbedState(tuple(scores), tuple(values), (rollouts,) * len(values), counts)


def probed(
    score: str, *, states: int = 120, n: int = 32, spread: float = 0.25, seed: int = 0
) -> list[ProbedState]:
    """States of four actions whose true values are known, with estimates from n rollouts of each."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(states):
        truth = np.clip(rng.normal(0.5, spread, size=4), 0.0, 1.0)
        values = rng.binomial(n, truth) / n
        scores = {"truth": truth, "estimate": values, "inverted": -values, "constant": np.full(4, 0.3)}[score]
        counts = rng.integers(1, 9, size=4)
        found.append(
            ProbedState(tuple(scores.tolist()), tuple(values.tolist()), (n,) * 4, tuple(counts.tolist()))
        )
    return found


def measured(score: str, **settings: float) -> Discrimination:
    return discrimination(probed(score, **settings), scorer=score)  # type: ignore[arg-type]


def test_the_estimates_themselves_reach_the_ceiling() -> None:
    found = measured("estimate")
    assert found.rank_correlation is not None
    assert found.rank_correlation.mean == pytest.approx(1.0)
    assert found.pairwise_accuracy == (1.0, 1.0, 1.0)
    assert found.gain == found.ceiling
    assert found.ceiling_reached == (1.0, 1.0, 1.0)


def test_a_constant_scorer_gains_nothing_and_ranks_nothing() -> None:
    found = measured("constant")
    assert found.rank_correlation == (0.0, 0.0, 0.0)
    assert found.pairwise_accuracy == (0.5, 0.5, 0.5)
    assert found.gain == (0.0, 0.0, 0.0)
    assert found.score_spread.mean == pytest.approx(0.0, abs=1e-12)


def test_an_inverted_scorer_loses() -> None:
    found = measured("inverted")
    assert found.gain.high < 0
    assert found.rank_correlation is not None
    assert found.rank_correlation.mean == pytest.approx(-1.0)
    assert found.pairwise_accuracy == (0.0, 0.0, 0.0)


def test_the_truth_gains_between_the_two_ceilings() -> None:
    found = measured("truth", states=800, n=12)
    assert found.attainable.mean < found.gain.mean < found.ceiling.mean
    assert found.pairwise_accuracy is not None
    assert 0.95 < found.pairwise_accuracy.mean <= 1.0


def test_noise_alone_has_a_ceiling_but_nothing_attainable_and_no_spread() -> None:
    found = measured("truth", states=800, n=16, spread=0.0)
    assert found.ceiling.low > 5.0
    assert found.attainable.low < 0.0 < found.attainable.high
    assert found.value_spread.low < 0.03
    assert found.telling_states < 0.25 * found.states


def test_the_spread_of_the_values_is_that_of_the_truth() -> None:
    found = measured("truth", states=1000, n=8, spread=0.1)
    assert found.value_spread.mean == pytest.approx(0.1, abs=0.012)
    assert found.score_spread.mean == pytest.approx(0.1, abs=0.005)


def test_numbers_by_hand() -> None:
    # The policy samples the first action three times of four: it gets .75 · .5 + .25 · 1 = .625.
    told = state([0.1, 0.9], [0.5, 1.0], frequencies=[3, 1])
    missed = state([0.9, 0.1], [0.5, 1.0], frequencies=[3, 1])
    tied = state([0.4, 0.4], [0.5, 1.0], frequencies=[3, 1])
    gains = [discrimination([s], scorer="x").gain.mean for s in (told, missed, tied)]
    assert gains == pytest.approx([37.5, -12.5, 0.0])
    both = discrimination([told, missed], scorer="x")
    assert both.gain.mean == pytest.approx(12.5)
    assert both.ceiling.mean == pytest.approx(37.5)
    assert both.ceiling_reached is not None
    assert both.ceiling_reached.mean == pytest.approx(1 / 3)
    assert both.pairwise_accuracy is not None
    assert both.pairwise_accuracy.mean == 0.5
    # (.1 - .9)² / 2 in both states
    assert both.score_spread.mean == pytest.approx(math.sqrt(0.32))


def test_coverage_is_the_share_of_the_policys_actions_that_were_kept() -> None:
    half = replace(state([0.1, 0.9], [0.5, 1.0], frequencies=[3, 1]), samples=8)
    whole = replace(half, samples=4)
    assert discrimination([half, whole], scorer="x").coverage == 0.75
    assert discrimination([half, replace(half, samples=None)], scorer="x").coverage is None


def test_states_that_tell_nothing_count_for_the_gain_alone() -> None:
    told, alike = state([0.1, 0.9], [0.1, 0.9]), state([0.9, 0.1], [0.5, 0.53])
    found = discrimination([told, alike], scorer="x")
    assert (found.states, found.telling_states) == (2, 1)
    assert found.pairwise_accuracy is not None
    assert found.pairwise_accuracy.mean == 1.0
    assert found.gain.mean == pytest.approx((40.0 - 1.5) / 2)
    nothing = discrimination([alike, alike], scorer="x")
    assert nothing.rank_correlation is None
    assert nothing.pairwise_accuracy is None


def test_values_that_are_known_exactly_have_no_noise() -> None:
    over = ProbedState((0.2, 0.1), (1.0, 0.0), (0, 0), (1, 1))
    found = discrimination([over] * 3, scorer="x")
    assert found.telling_states == 3
    assert found.attainable == found.ceiling == found.gain == (50.0, 50.0, 50.0)
    assert found.value_spread.mean == pytest.approx(math.sqrt(0.5))


def test_the_same_seed_gives_the_same_numbers_as_plain_json() -> None:
    states = probed("truth")
    found = discrimination(states, scorer="x", seed=3)
    assert discrimination(states, scorer="x", seed=3) == found
    read = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert read["gain"] == found.gain._asdict()
    assert read["telling_states"] == found.telling_states


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(DataError, match="no state"):
        discrimination([], scorer="x")
    with pytest.raises(DataError, match="two actions or more"):
        state([0.1], [0.5])
    with pytest.raises(DataError, match="parts of"):
        state([0.1, 0.2, 0.3], [0.5, 0.6])
    with pytest.raises(DataError, match="sampled 0 times"):
        state([0.1, 0.2], [0.5, 0.6], frequencies=[1, 0])
