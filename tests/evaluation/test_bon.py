"""Best-of-N of a pool against brute force and hand-worked numbers, its bounds, choices and comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, permutations

import pytest

from rlprm.data.fed_tokens import fed_tokens
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
    until_accepted,
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


# Candidates of one task: success, the rule's last score, their actions. Two are accepted, one wrongly; the
# one that succeeds unseen has the second-best score.
UNTIL = [
    (True, 1.0, ("left", "up", "up")),
    (False, 0.2, ("left", "up")),
    (True, 0.5, ("left", "down", "up", "up")),
    (False, 1.0, ("right",)),
    (False, 0.2, ("right", "down")),
]


def acting(candidates: Sequence[tuple[bool, float, tuple[str, ...]]]) -> list[Trajectory]:
    """Trajectories whose tokens begin alike as far as their actions do."""
    ids = {text: 10 + place for place, text in enumerate(("left", "right", "up", "down"))}
    made = []
    for sample, (won, _, actions) in enumerate(candidates):
        plain = of_steps(won, len(actions), sample=sample, score=0.9 * won)
        tokens = tuple(
            ids[actions[sum(s.end < i for s in plain.steps)]] if sampled else i
            for i, sampled in enumerate(plain.action_mask)
        )
        steps = tuple(replace(step, action=text) for step, text in zip(plain.steps, actions, strict=True))
        made.append(replace(plain, token_ids=tokens, steps=steps))
    return made


def rule_of(candidates: Sequence[tuple[bool, float, tuple[str, ...]]]) -> Listed:
    values = [[0.0] * (len(actions) - 1) + [score] for _, score, actions in candidates]
    return Listed("rule", {"a": values})


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_sampling_until_acceptance_is_the_mean_over_all_orders(k: int) -> None:
    row = acting(UNTIL)
    (found,) = until_accepted(Pool.from_trajectories(row).scored(rule_of(UNTIL)), "rule", "last", [k])
    totals = dict.fromkeys(("won", "score", "steps", "fed", "sampled", "read", "episodes"), 0.0)
    orders = list(permutations(range(5)))
    for order in orders:
        stop = next((i + 1 for i in range(k) if UNTIL[order[i]][1] == 1.0), k)
        drawn = [row[i] for i in order[:stop]]
        best = drawn[-1] if UNTIL[order[stop - 1]][1] == 1.0 else max(drawn, key=lambda t: UNTIL[t.sample][1])
        totals["won"] += best.outcome.success
        totals["score"] += best.outcome.score
        begun = {tuple(s.action for s in t.steps[:end]) for t in drawn for end in range(1, len(t.steps) + 1)}
        totals["steps"] += len(begun)
        totals["fed"] += sum(fed_tokens(drawn))
        totals["sampled"] += sum(t.action_tokens for t in drawn)
        totals["read"] += 9 * len(drawn)
        totals["episodes"] += len(drawn)
    mean = {name: pytest.approx(total / len(orders)) for name, total in totals.items()}
    record = found.record
    assert (record.success_rate, record.mean_score) == (mean["won"], mean["score"])
    assert (record.env_steps, record.policy_tokens) == (mean["steps"], mean["fed"])
    assert (record.sampled_tokens, record.prm_tokens) == (mean["sampled"], mean["read"])
    assert (record.episodes, record.n, record.strategy) == (mean["episodes"], k, "until_accepted")
    assert (record.name, record.label) == (f"until rule, at most {k}", "until rule, at most N")


def test_a_rule_that_accepts_nothing_costs_and_chooses_as_best_of_n() -> None:
    never = [(won, min(score, 0.9), actions) for won, score, actions in UNTIL]
    pool = Pool.from_trajectories(acting(never)).scored(rule_of(never))
    for ours, best in zip(
        until_accepted(pool, "rule", "last", [1, 3, 5]),
        best_of_n(pool, "rule", "last", [1, 3, 5]),
        strict=True,
    ):
        assert ours.successes == pytest.approx(best.successes)
        for name in ("mean_score", "policy_tokens", "sampled_tokens", "prm_tokens", "env_steps"):
            assert getattr(ours.record, name) == pytest.approx(getattr(best.record, name))
        assert ours.record.episodes == pytest.approx(ours.record.n)


def test_without_an_accepted_candidate_an_end_that_the_agent_declared_comes_first_as_in_searches() -> None:
    given = [(True, 0.1, ("left", "down")), (False, 0.9, ("right", "up"))]
    declared, cut_off = acting(given)
    pool = Pool.from_trajectories([declared, replace(cut_off, stop=StopReason.ROUND_LIMIT)])
    (ours,) = until_accepted(pool.scored(rule_of(given)), "rule", "last", [2])
    (best,) = best_of_n(pool.scored(rule_of(given)), "rule", "last", [2])
    assert (ours.record.success_rate, best.record.success_rate) == (1.0, 0.0)


def test_a_rule_that_accepts_everything_costs_one_sample() -> None:
    always = [(won, 1.0, actions) for won, _, actions in UNTIL]
    pool = Pool.from_trajectories(acting(always)).scored(rule_of(always))
    one = sample_mean(pool)
    for found in until_accepted(pool, "rule", "last", [1, 2, 5]):
        assert found.successes == pytest.approx(one.successes)
        assert found.record.env_steps == pytest.approx(one.record.env_steps)
        assert found.record.policy_tokens == pytest.approx(one.record.policy_tokens)
        assert found.record.episodes == pytest.approx(1.0)


def test_until_acceptance_succeeds_as_often_as_best_of_n_and_costs_less() -> None:
    pool = Pool.from_trajectories(acting(UNTIL)).scored(rule_of(UNTIL))
    budgets = range(1, 6)
    for ours, best in zip(
        until_accepted(pool, "rule", "last", budgets), best_of_n(pool, "rule", "last", budgets), strict=True
    ):
        assert ours.successes == pytest.approx(best.successes)
        saves = ours.record.n > 1
        assert (ours.record.env_steps < best.record.env_steps - 0.01) is saves
        assert (ours.record.total_tokens < best.record.total_tokens - 0.01) is saves


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


@pytest.mark.parametrize("seed", [0, 1])
def test_choosing_by_lot_is_one_sample_whatever_the_lot(seed: int) -> None:
    pool = scored_pool(tasks=40)
    scorer = Random(seed)
    scorer.name = "lot"
    one = sample_mean(pool)
    for found in best_of_n(pool.scored(scorer), "lot", "last", [1, 8, 16]):
        assert found.successes == pytest.approx(one.successes)
        assert found.record.mean_score == pytest.approx(one.record.mean_score)


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
