"""Best-of-N: the right candidate, its true cost, and exact expectations."""

from __future__ import annotations

import math
from itertools import combinations

import pytest

from rlprm.errors import ConfigError, DataError
from rlprm.scorers.random import Random
from rlprm.scorers.shortest import Shortest
from rlprm.search import best_of_n
from rlprm.search.base import score_all
from rlprm.types import End, EpisodeSetting, Split, StopReason
from tests.toys import corridor
from tests.toys.agents import FunctionScorer, SeededPolicy
from tests.toys.trajectories import of_steps, step_scores

POOL = [of_steps(sample=i, success=i == 2) for i in range(3)]
SCORES = [step_scores([0.9, 0.4]), step_scores([0.6, 0.5]), step_scores([0.1, 0.6])]


@pytest.mark.parametrize(
    ("aggregation", "chosen", "score"),
    [
        ("last", 2, 0.6),
        ("min", 1, 0.5),
        ("mean", 0, 0.65),
        ("product", 0, 0.36),
    ],
)
def test_chooses_by_the_aggregated_score(aggregation: str, chosen: int, score: float) -> None:
    (result,) = best_of_n.choose([POOL], [SCORES], aggregation)
    assert result.trajectory.sample == chosen
    assert result.score == pytest.approx(score)


def test_the_cost_is_that_of_the_whole_pool() -> None:
    (result,) = best_of_n.choose([POOL], [SCORES])
    # The three are equal but for their outcomes: 3 tokens are read once, and 2 · 2 sampled ones fed in each.
    assert (result.policy_tokens, result.sampled_tokens) == (3 + 3 * 2 * 2, 3 * 2 * 3)
    assert (result.scorer_tokens, result.env_steps) == (3 * 7, 3 * 2)


def test_the_first_of_equals_is_chosen() -> None:
    (result,) = best_of_n.choose([POOL], [[step_scores([0.5, 0.5])] * 3])
    assert result.trajectory.sample == 0


def test_failed_and_empty_episodes_rank_below_the_lowest_score() -> None:
    failed = of_steps(sample=0, stop=StopReason.ERROR)
    empty = of_steps(sample=1, steps=0, stop=StopReason.CONTEXT_LIMIT)
    poor = of_steps(sample=2, steps=1)
    pool = [failed, empty, poor]
    scores = score_all(FunctionScorer(lambda *_: -1e9), pool)
    assert scores[:2] == [None, None]
    (result,) = best_of_n.choose([pool], [scores])
    assert result.trajectory is poor
    assert result.score == -1e9

    (alone,) = best_of_n.choose([[failed]], [[None]])
    assert alone.score is None


def test_an_unfinished_candidate_is_refused() -> None:
    with pytest.raises(DataError, match="unfinished"):
        best_of_n.choose([[of_steps(stop=None)]], [[step_scores([0.1, 0.2])]])


def test_an_empty_pool_is_refused() -> None:
    with pytest.raises(DataError, match="without candidates"):
        best_of_n.choose([[]], [[]])


@pytest.mark.parametrize("aggregation", ["last", "min"])
@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_the_expectation_is_the_mean_over_all_draws(aggregation: str, k: int) -> None:
    successes = [True, False, True, False, False]
    rewards = [1.0, 0.3, 1.0, 0.2, 0.0]
    values = [(0.9, 0.2), (0.5, 0.7), (0.8, 0.6), (0.1, 0.4)]
    pool = [of_steps(s, sample=i, score=r) for i, (s, r) in enumerate(zip(successes, rewards, strict=True))]
    pool[4] = of_steps(stop=StopReason.ERROR, sample=4)
    scores = [*map(step_scores, values), None]

    def chosen(drawn: tuple[int, ...]) -> int:
        return best_of_n.choose([[pool[i] for i in drawn]], [[scores[i] for i in drawn]], aggregation)[
            0
        ].trajectory.sample

    draws = [chosen(drawn) for drawn in combinations(range(5), k)]
    by_success = best_of_n.expected(pool, scores, aggregation, [k])[k]
    assert by_success == pytest.approx(math.fsum(pool[i].outcome.success for i in draws) / len(draws))
    by_score = best_of_n.expected(pool, scores, aggregation, [k], graded=True)[k]
    assert by_score == pytest.approx(math.fsum(pool[i].outcome.score for i in draws) / len(draws))


def test_samples_n_candidates_for_every_task_and_returns_the_best() -> None:
    tasks = corridor.tasks(Split.TEST, 0, 3)
    policy = SeededPolicy()

    def more_right(_: object, actions: tuple[str, ...]) -> float:
        return float(actions.count("right"))

    scorer = FunctionScorer(more_right)
    results = best_of_n.search(tasks, policy, scorer, EpisodeSetting(end=End.DECLARED), n=4)
    assert policy.calls[0] == 12
    assert len(scorer.seen) == 12
    for index, result in enumerate(results):
        assert result.trajectory.task == tasks[index]
        best = max(actions.count("right") for actions in scorer.seen[4 * index : 4 * index + 4])
        assert result.score == best
    assert len({len(actions) for actions in scorer.seen}) > 1


def test_impossible_settings_are_refused() -> None:
    tasks, setting = corridor.tasks(Split.TEST, 0, 1), EpisodeSetting()
    with pytest.raises(ConfigError, match="n must be at least 1"):
        best_of_n.search(tasks, SeededPolicy(), Shortest(), setting, n=0)
    with pytest.raises(ConfigError, match="temperature 0"):
        best_of_n.search(tasks, SeededPolicy(temperature=0.0), Shortest(), setting, n=2)
    with pytest.raises(ConfigError, match="unknown aggregation 'median'"):
        best_of_n.search(tasks, SeededPolicy(), Random(), setting, n=2, aggregation="median")
