"""Scores that are missing, too few or not finite are refused, never replaced."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from rlprm.errors import ConfigError, DataError
from rlprm.search.base import UNRANKED, rank_score, score_all
from rlprm.types import StepScores, StopReason, Trajectory
from tests.toys.trajectories import of_steps, step_scores


class Fixed:
    """Answers with what it was given."""

    name = "fixed"

    def __init__(self, *answers: StepScores) -> None:
        self.answers = list(answers)

    def score(self, trajectories: Sequence[Trajectory]) -> list[StepScores]:
        self.asked = list(trajectories)
        return self.answers


def test_only_what_can_be_scored_is_passed_on_and_results_keep_their_place() -> None:
    failed, empty = of_steps(stop=StopReason.ERROR), of_steps(steps=0)
    one, two = of_steps(sample=1), of_steps(sample=2, stop=None)
    scorer = Fixed(step_scores([1.0, 2.0]), step_scores([3.0, 4.0]))
    assert score_all(scorer, [failed, one, empty, two]) == [None, scorer.answers[0], None, scorer.answers[1]]
    assert scorer.asked == [one, two]


def test_a_missing_result_is_refused() -> None:
    with pytest.raises(DataError, match="scorer fixed returned 1 results for 2 trajectories"):
        score_all(Fixed(step_scores([1.0, 2.0])), [of_steps(), of_steps()])


def test_a_missing_value_is_refused() -> None:
    with pytest.raises(DataError, match="returned 1 values for 2 steps"):
        score_all(Fixed(step_scores([1.0])), [of_steps()])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(DataError, match="gave step 1 the score"):
        score_all(Fixed(step_scores([value, 0.5])), [of_steps()])


def test_what_was_not_scored_ranks_below_every_score() -> None:
    assert rank_score(None, "last") == UNRANKED < rank_score(step_scores([-1e308]), "last")
    assert rank_score(step_scores([0.2, 0.0]), "last") == 0.0
    with pytest.raises(ConfigError, match="unknown aggregation"):
        rank_score(step_scores([0.5]), "median")
