"""The baselines without a model, and the trap they are there to reveal."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from rlprm.errors import ConfigError
from rlprm.functional.best_of_n import oracle_at_k
from rlprm.rollouts.waves import rollout
from rlprm.scorers import Scorer
from rlprm.scorers.declared import Declared
from rlprm.scorers.policy_confidence import PolicyConfidence
from rlprm.scorers.random import Random
from rlprm.scorers.shortest import Shortest
from rlprm.scorers.with_confidence import WithConfidence
from rlprm.search import best_of_n
from rlprm.search.base import score_all
from rlprm.types import End, EpisodeSetting, Split, StopReason
from tests.toys import corridor
from tests.toys.agents import FunctionScorer, SeededPolicy
from tests.toys.trajectories import of_steps


@pytest.mark.parametrize("scorer", [Random(), Shortest(), PolicyConfidence(), Declared()])
def test_scores_every_step_without_model_tokens(scorer: Scorer) -> None:
    long, short = scorer.score([of_steps(steps=3), of_steps(steps=1)])
    assert (len(long.values), len(short.values)) == (3, 1)
    assert long.tokens == short.tokens == 0
    assert isinstance(scorer.name, str)


def test_shortest_counts_actions() -> None:
    (scores,) = Shortest().score([of_steps(steps=3)])
    assert scores.values == (-1.0, -2.0, -3.0)
    assert scores.initial == 0.0


def test_declared_takes_the_agents_word_at_the_last_step_alone() -> None:
    ends = (StopReason.DECLARED, StopReason.ROUND_LIMIT, StopReason.FAILURE, None)
    scores = Declared().score([of_steps(steps=3, stop=stop) for stop in ends])
    assert [s.values for s in scores] == [(0, 0, 1), (0, 0, 0), (0, 0, 0), (0, 0, 0)]
    assert {s.initial for s in scores} == {0.0}
    assert Declared().score([of_steps(steps=0)])[0].values == ()


def test_the_best_by_declaration_is_any_declared_candidate_or_any_of_all() -> None:
    # Successes: one of two that were declared, none of two that ran into the limit.
    row = [(True, StopReason.DECLARED), (False, StopReason.DECLARED), *[(False, StopReason.ROUND_LIMIT)] * 2]
    pool = [of_steps(won, sample=i, stop=stop) for i, (won, stop) in enumerate(row)]
    # Of 6 pairs, 5 have a declared candidate, and half of those succeed; with 4, one of two.
    found = best_of_n.expected(pool, Declared().score(pool), "last", [1, 2, 4])
    assert found == pytest.approx({1: 1 / 4, 2: 5 / 6 / 2, 4: 1 / 2})
    cut_off = [replace(t, stop=StopReason.ROUND_LIMIT) for t in pool]
    found = best_of_n.expected(cut_off, Declared().score(cut_off), "last", [1, 2, 4])
    assert found == pytest.approx(dict.fromkeys((1, 2, 4), 1 / 4))


def test_confidence_is_the_probability_of_each_action() -> None:
    made = of_steps(steps=2, action_tokens=2)  # tokens: . aa . aa
    halves = replace(made, logprobs=tuple(math.log(p) for p in (1, 0.5, 0.5, 1, 0.8, 1)))
    (scores,) = PolicyConfidence().score([halves])
    assert scores.values == pytest.approx((0.25, 0.8))
    assert scores.initial == 1.0


def test_of_long_actions_the_probability_of_a_token_is_taken_forced_tokens_left_out() -> None:
    made = of_steps(steps=1, action_tokens=3)
    forced = replace(made, action_mask=(0, 1, 1, 0), logprobs=(0.0, math.log(0.5), math.log(0.125), 0.0))
    assert PolicyConfidence("token").score([forced])[0].values == pytest.approx((0.25,))
    assert PolicyConfidence("action").score([forced])[0].values == pytest.approx((0.0625,))
    with pytest.raises(ConfigError, match="confidence_per: got 'word', allowed: action, token"):
        PolicyConfidence("word")


def test_a_product_weights_values_by_the_mean_probability_of_the_actions_so_far() -> None:
    made = of_steps(steps=3, action_tokens=1)  # tokens: . a . a . a
    sampled = replace(made, logprobs=tuple(math.log(p) for p in (1, 0.5, 1, 0.7, 1, 0.9)))
    values = {(): 0.4, ("action 1",): 0.6, ("action 1", "action 2"): -0.1}
    scorer = FunctionScorer(lambda _, actions: values.get(actions, 0.8), tokens=11)
    (scores,) = WithConfidence(scorer).score([sampled])
    # 0.6 · 0.5; a value below 0 is 0; 0.8 · (0.5 + 0.7 + 0.9) / 3
    assert scores.values == pytest.approx((0.3, 0.0, 0.56))
    assert (scores.initial, scores.tokens) == (0.4, 11)
    assert WithConfidence(scorer).name == "toy_x_policy"


def test_random_depends_on_seed_task_sample_and_step_alone() -> None:
    (reference,) = Random(1).score([of_steps(steps=3, sample=4)])
    assert len({reference.initial, *reference.values}) == 4
    assert Random(1).score([of_steps(), of_steps(True, steps=3, sample=4)])[1] == reference
    (longer,) = Random(1).score([of_steps(steps=5, sample=4)])
    assert longer.values[:3] == reference.values
    (other_seed,) = Random(2).score([of_steps(steps=3, sample=4)])
    (other_task,) = Random(1).score([of_steps(steps=3, sample=4, task="b")])
    (other_sample,) = Random(1).score([of_steps(steps=3, sample=5)])
    assert len({reference, other_seed, other_task, other_sample}) == 4


def test_random_is_uniform_over_the_candidates() -> None:
    scores = Random().score(
        [of_steps(steps=1, sample=sample, task=str(sample % 50)) for sample in range(1000)]
    )
    mean = sum(s.values[0] for s in scores) / 1000
    assert 0.45 < mean < 0.55
    assert all(0 <= s.values[0] < 1 for s in scores)


def best_of_four(end: End) -> tuple[float, float, float]:
    """Mean success over 30 tasks of one sample, of the shortest of four, and of the oracle."""
    tasks = corridor.tasks(Split.TEST, 0, 30, length=5)
    policy = SeededPolicy(("right", "right", "left", "finish"))
    setting = EpisodeSetting(end=end)
    sample, shortest, oracle = 0.0, 0.0, 0.0
    for task in tasks:
        pool = rollout([(task, i) for i in range(12)], policy, setting)
        chosen = best_of_n.expected(pool, score_all(Shortest(), pool), "last", [1, 4])
        sample, shortest = sample + chosen[1] / 30, shortest + chosen[4] / 30
        oracle += oracle_at_k([float(t.outcome.success) for t in pool], 4) / 30
    return sample, shortest, oracle


def test_where_success_ends_the_episode_the_shortest_candidate_is_the_oracle() -> None:
    # Failures run into the round limit; the only successes as long as they are those of the very last turn.
    sample, shortest, oracle = best_of_four(End.ON_SUCCESS)
    assert sample + 0.2 < oracle
    assert shortest == pytest.approx(oracle, abs=0.02)


def test_where_the_agent_ends_the_episode_the_shortest_candidate_gives_nothing_away() -> None:
    sample, shortest, oracle = best_of_four(End.DECLARED)
    assert sample + 0.1 < oracle
    assert shortest < sample


def test_shortest_does_not_look_at_the_outcome() -> None:
    pool = [of_steps(True, steps=2), of_steps(False, steps=2)]
    assert len(set(Shortest().score(pool))) == 1
    assert Shortest().score([replace(pool[0], stop=None)]) == Shortest().score(pool[1:])
