"""Best-of-N: the right candidate, its true cost, and exact expectations."""

from __future__ import annotations

import math
from itertools import combinations

import pytest

from rlprm.errors import ConfigError, DataError
from rlprm.evaluation.pool import Pool
from rlprm.rollouts.waves import rollout
from rlprm.scorers.random import Random
from rlprm.scorers.shortest import Shortest
from rlprm.search import best_of_n
from rlprm.search.base import rank_score, score_all
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
    assert best_of_n.choose(POOL, SCORES, aggregation) == chosen
    assert rank_score(SCORES[chosen], aggregation) == pytest.approx(score)


def test_the_first_of_equals_is_chosen() -> None:
    assert best_of_n.choose(POOL, [step_scores([0.5, 0.5])] * 3) == 0


def test_failed_and_empty_episodes_rank_below_the_lowest_score() -> None:
    failed = of_steps(sample=0, stop=StopReason.ERROR)
    empty = of_steps(sample=1, steps=0, stop=StopReason.CONTEXT_LIMIT)
    poor = of_steps(sample=2, steps=1)
    pool = [failed, empty, poor]
    scores = score_all(FunctionScorer(lambda *_: -1e9), pool)
    assert scores[:2] == [None, None]
    assert best_of_n.choose(pool, scores) == 2
    assert best_of_n.choose([failed], [None]) == 0


def test_a_candidate_that_the_search_cut_off_ranks_below_the_others_that_have_a_score() -> None:
    cut, failed = of_steps(stop=StopReason.SEARCH_LIMIT), of_steps(stop=StopReason.ERROR)
    assert (
        best_of_n.choose([cut, of_steps(sample=1)], [step_scores([0.9, 0.9]), step_scores([0.1, 0.1])]) == 1
    )
    assert best_of_n.choose([failed, cut], [None, step_scores([0.1, 0.1])]) == 1


def test_an_unfinished_candidate_is_refused() -> None:
    with pytest.raises(DataError, match="unfinished"):
        best_of_n.choose([of_steps(stop=None)], [step_scores([0.1, 0.2])])


def test_an_empty_pool_is_refused() -> None:
    with pytest.raises(DataError, match="without candidates"):
        best_of_n.choose([], [])


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
        return drawn[best_of_n.choose([pool[i] for i in drawn], [scores[i] for i in drawn], aggregation)]

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


def long_walks(_: object, actions: tuple[str, ...]) -> float:
    return len(actions) + sum(map(ord, "".join(actions))) % 7 / 10


@pytest.mark.parametrize("budget", range(1, 40))
def test_a_budget_pays_for_the_candidates_that_sampling_one_after_another_would_begin(budget: int) -> None:
    # The lengths of the unlimited candidates say how many of them the budget pays for, and where it ends.
    setting, words = EpisodeSetting(end=End.DECLARED, round_limit=6), ("right", "left", "finish")
    (task,) = corridor.tasks(Split.TEST, 0, 1)
    (free,) = best_of_n.search([task], SeededPolicy(words), FunctionScorer(long_walks), setting, n=12)
    expected, left = [], budget
    for node in free.nodes:
        if left:
            expected.append(node.actions[:left])
        left -= min(left, len(node.actions))
    (result,) = best_of_n.search(
        [task], SeededPolicy(words), FunctionScorer(long_walks), setting, n=12, budget=budget
    )
    by_sample = sorted(result.nodes, key=lambda node: node.round)
    assert [node.actions for node in by_sample] == expected
    assert result.env_steps == min(budget, free.env_steps)
    cut = [node for node in result.nodes if node.stop is StopReason.SEARCH_LIMIT]
    assert len(cut) <= 1
    assert not cut or not cut[0].chosen or len(result.nodes) == 1


def test_distinct_steps_are_those_that_a_pool_of_the_same_candidates_counts() -> None:
    policy, setting = SeededPolicy(("right", "left", "finish")), EpisodeSetting(round_limit=6)
    repeats = 0
    for task in corridor.tasks(Split.TEST, 0, 5):
        (result,) = best_of_n.search([task], policy, Shortest(), setting, n=6)
        pool = Pool.from_trajectories(rollout([(task, sample) for sample in range(6)], policy, setting))
        assert result.distinct_steps == pytest.approx(pool.expected_steps(6))
        repeats += result.env_steps - result.distinct_steps
    assert repeats > 0
