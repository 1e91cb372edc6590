"""Best-of-N of a pool against brute force and hand-worked numbers, its bounds, choices and comparisons."""

from __future__ import annotations

from itertools import combinations

import pytest

from rlprm.errors import ConfigError
from rlprm.evaluation.bon import (
    best_of_n,
    choose_aggregation,
    comparisons,
    evaluate_pool,
    gap_closed,
    headline,
    oracle,
    sample_mean,
)
from rlprm.evaluation.pool import Pool
from rlprm.scorers.random import Random
from rlprm.types import StepScores, StopReason, Trajectory
from tests.toys.evaluations import BUDGETS, SCORERS, measurements, scored_pool
from tests.toys.trajectories import of_steps, step_scores

# Two tasks, four candidates each. Task a: scores rank 2 3 0 1, successes 0 and 2. Task b: never solved.
SUCCESS = {"a": [True, False, True, False], "b": [False] * 4}
VALUES = {"a": [[0.9, 0.5], [0.8, 0.1], [0.2, 0.7], [0.9, 0.6]], "b": [[0.5, 0.5]] * 4}


class Listed:
    """Scores from a list per task."""

    def __init__(self, name: str, values: dict[str, list[list[float]]]) -> None:
        self.name, self.values = name, values

    def score(self, trajectories: list[Trajectory]) -> list[StepScores]:
        return [step_scores(self.values[t.task.id][t.sample], tokens=9) for t in trajectories]


def small_pool() -> Pool:
    flat = [
        of_steps(won, task=task, sample=i, score=1.0 if won else 0.2)
        for task, row in SUCCESS.items()
        for i, won in enumerate(row)
    ]
    return Pool.from_trajectories(flat).scored(Listed("prm", VALUES))


def test_best_of_k_by_hand() -> None:
    # Task a, last scores .5 .1 .7 .6: descending successes 1 0 1 0, C(4,2) = 6 draws of two:
    # rank 1 wins 3 of them, rank 2 wins 2, rank 3 wins 1: (3·1 + 2·0 + 1·1) / 6 = 2/3. Task b: 0.
    records = [m.record for m in best_of_n(small_pool(), "prm", "last", [1, 2, 4])]
    assert [r.success_rate for r in records] == pytest.approx([1 / 4, 1 / 3, 1 / 2])
    assert [r.mean_score for r in records] == pytest.approx([0.2 + 0.8 / 4, 0.2 + 0.8 / 3, 0.6])
    assert [(r.n, r.m, r.scorer, r.aggregation, r.strategy) for r in records][1] == (
        2, 1, "prm", "last", "best_of_n",
    )  # fmt: skip


def test_costs_are_those_of_k_candidates() -> None:
    # Every trajectory: 2 actions of 3 tokens, of which 2 are fed back; 9 tokens to score it. All trajectories
    # of a task are equal here, so that the prompt, a closing token and an observation are read once, and the
    # two actions carried out once.
    (record,) = [m.record for m in best_of_n(small_pool(), "prm", "last", [3])]
    assert (record.policy_tokens, record.sampled_tokens) == (3 + 3 * 4, 3 * 6)
    assert (record.prm_tokens, record.env_steps) == (3 * 9, 2)
    (bound,) = [m.record for m in oracle(small_pool(), [3])]
    assert (bound.policy_tokens, bound.prm_tokens, bound.env_steps) == (3 + 3 * 4, 0, 2)
    one = sample_mean(small_pool()).record
    assert (one.policy_tokens, one.sampled_tokens, one.prm_tokens) == (3 + 4, 6, 0)
    assert (one.env_steps, one.n) == (2, 1)


def test_the_oracle_is_pass_at_k() -> None:
    # task a: 2 of 4 succeed: 1 - C(2,2)/C(4,2) = 5/6 at k = 2, 1 at k ≥ 3
    found = oracle(small_pool(), [1, 2, 3])
    assert [m.successes["a"] for m in found] == pytest.approx([1 / 2, 5 / 6, 1.0])
    assert [m.successes["b"] for m in found] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("aggregation", ["last", "min", "mean", "product"])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_best_of_k_is_the_mean_over_all_draws(aggregation: str, k: int) -> None:
    pool = scored_pool(tasks=3, n=6)
    (found,) = best_of_n(pool, "orm", aggregation, [k])
    for row, scores in zip(pool.trajectories, pool.scores_of("orm"), strict=True):
        draws = list(combinations(range(6), k))
        best = [max(drawn, key=lambda i: combine(aggregation, scores[i].values)) for drawn in draws]
        mean = sum(row[i].outcome.success for i in best) / len(draws)
        assert found.successes[row[0].task.id] == pytest.approx(mean)


def combine(aggregation: str, values: tuple[float, ...]) -> float:
    if aggregation == "product":
        product = 1.0
        for value in values:
            product *= value
        return product
    return {"last": values[-1], "min": min(values), "mean": sum(values) / len(values)}[aggregation]


def test_a_failed_candidate_is_never_preferred() -> None:
    failed = of_steps(task="a", sample=0, stop=StopReason.ERROR)
    won = of_steps(True, task="a", sample=1)
    pool = Pool.from_trajectories([failed, won]).scored(Listed("prm", {"a": [[9.0, 9.0], [-50.0, -50.0]]}))
    one, two = best_of_n(pool, "prm", "last", [1, 2])
    assert (one.record.success_rate, two.record.success_rate) == (0.5, 1.0)
    assert two.record.prm_tokens == 9  # only the one that was scored, 2 · 9/2


def test_choosing_by_lot_is_on_average_one_sample() -> None:
    pool = scored_pool(tasks=40)
    rates = []
    for seed in range(20):
        scorer = Random(seed)
        scorer.name = f"lot {seed}"
        (found,) = best_of_n(pool.scored(scorer), scorer.name, "last", [8])
        rates.append(found.record.success_rate)
    assert sum(rates) / 20 == pytest.approx(sample_mean(pool).record.success_rate, abs=0.02)


def test_everything_a_pool_can_tell() -> None:
    pool = scored_pool(tasks=5)
    found = evaluate_pool(pool, {"orm": ["last", "mean"], "shortest": ["last"]}, [1, 4])
    assert [(m.record.strategy, m.record.scorer, m.record.aggregation, m.record.n) for m in found] == [
        ("sample_mean", None, None, 1),
        ("oracle", None, None, 1),
        ("oracle", None, None, 4),
        ("best_of_n", "orm", "last", 1),
        ("best_of_n", "orm", "last", 4),
        ("best_of_n", "orm", "mean", 1),
        ("best_of_n", "orm", "mean", 4),
        ("best_of_n", "shortest", "last", 1),
        ("best_of_n", "shortest", "last", 4),
    ]
    assert {m.record.tasks for m in found} == {5}
    kept = headline(found, {"orm": "mean", "shortest": "last"})
    assert [m.record.aggregation for m in kept if m.record.scorer == "orm"] == ["mean", "mean"]
    assert len(kept) == 7


@pytest.mark.parametrize("k", [0, 17])
def test_a_budget_the_pool_does_not_have_is_refused(k: int) -> None:
    pool = scored_pool(tasks=2)
    with pytest.raises(ConfigError, match=r"1 \.\.\. 16"):
        best_of_n(pool, "orm", "last", [k])
    with pytest.raises(ConfigError, match=r"1 \.\.\. 16"):
        oracle(pool, [k])


def test_the_aggregation_is_chosen_by_success_on_dev_tasks() -> None:
    # Task a at k = 4: last chooses candidate 2 (a success); min too would choose 0 (.5, a success);
    # mean chooses 3 (.75, a failure); product 3 (.54). Task b: always a failure.
    choice = choose_aggregation(small_pool(), "prm", 4)
    assert dict(choice.success_rates) == {"last": 0.5, "min": 0.0, "mean": 0.0, "product": 0.0}
    assert (choice.name, choice.scorer, choice.k) == ("last", "prm", 4)


def test_of_equal_aggregations_the_first_in_order_is_chosen() -> None:
    assert choose_aggregation(small_pool(), "prm", 4, ["product", "mean", "min"]).name == "product"
    assert choose_aggregation(small_pool(), "prm", 4, ["mean", "last"]).name == "last"
    with pytest.raises(ConfigError, match="no aggregation"):
        choose_aggregation(small_pool(), "prm", 4, [])


def test_the_gap_is_closed_by_the_oracle_and_not_by_lot() -> None:
    # a alone: mean 1/2; k = 2: BoN 2/3, oracle 5/6, half of the gap. With b the same halves on both sides.
    pool = small_pool()
    found = [sample_mean(pool), *oracle(pool, [1, 2]), *best_of_n(pool, "prm", "last", [1, 2])]
    assert gap_closed(found) == {"prm": {1: None, 2: pytest.approx(0.5)}}

    knowing = {"a": [[float(s)] * 2 for s in SUCCESS["a"]], "b": VALUES["b"]}
    wrong = {"a": [[-float(s)] * 2 for s in SUCCESS["a"]], "b": VALUES["b"]}
    pool = pool.scored(Listed("knowing", knowing)).scored(Listed("wrong", wrong))
    found = evaluate_pool(pool, {"knowing": ["last"], "wrong": ["last"]}, [2])
    assert gap_closed(found) == {"knowing": {2: pytest.approx(1.0)}, "wrong": {2: pytest.approx(-1.0)}}


def test_a_gap_needs_one_aggregation_per_scorer_and_the_bounds() -> None:
    pool = small_pool()
    found = evaluate_pool(pool, {"prm": ["last", "min"]}, [2])
    with pytest.raises(ConfigError, match="several aggregations"):
        gap_closed(found)
    with pytest.raises(ConfigError, match="expected one measurement of sample_mean"):
        gap_closed(best_of_n(pool, "prm", "last", [2]))


def test_comparisons_put_the_main_scorer_against_all_others_and_beams_against_greedy() -> None:
    found = measurements(scored_pool())
    names = [(c.a, c.b) for c in comparisons(found, main="agentprm", n=16)]
    assert names == [
        ("best of 16, agentprm", "one sample"),
        ("best of 16, agentprm", "best of 16, orm"),
        ("best of 16, agentprm", "best of 16, random"),
        ("best of 16, agentprm", "best of 16, shortest"),
        ("beam 2×4, agentprm", "greedy"),
        ("beam 4×4, agentprm", "greedy"),
    ]
    rates = {m.record.name: m.record.success_rate for m in found}
    for c in comparisons(found, main="agentprm", n=16):
        assert c.difference == pytest.approx(rates[c.a] - rates[c.b])
        assert c.ci_low <= c.difference <= c.ci_high
    with pytest.raises(ConfigError, match="best_of_n with agentprm at N = 3, got 0"):
        comparisons(found, main="agentprm", n=3)


def test_better_scorers_come_out_better() -> None:
    found = measurements(scored_pool())
    at_16 = {m.record.scorer: m.record.success_rate for m in found if m.record.name.startswith("best of 16")}
    assert at_16["agentprm"] > at_16["orm"] > at_16["random"]
    assert set(at_16) == {scorer.name for scorer in SCORERS}
    assert BUDGETS[-1] == 16
