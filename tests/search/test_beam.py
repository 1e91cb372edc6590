"""Beam search worked by hand in the corridor: every rule has a test that another rule would fail."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import pytest

from rlprm.errors import ConfigError, DataError
from rlprm.models.tiny import tiny_model
from rlprm.policies.hf import HFPolicy
from rlprm.search import SearchResult, beam, best_of_n
from rlprm.types import End, EpisodeSetting, Split, StopReason, Task
from tests.toys import corridor
from tests.toys.agents import (
    FED_PER_TOKEN,
    FunctionScorer,
    ScriptedPolicy,
    SeededPolicy,
    renderer,
    table_scorer,
)

SETTING = EpisodeSetting(end=End.DECLARED)
TASK = Task("tests.toys.corridor", "by-hand", Split.TEST, {"goal": 1, "length": 4, "budget": None})
Script = Mapping[tuple[str, ...], Sequence[str]]


def actions(result: SearchResult) -> list[str]:
    return [step.action for step in result.trajectory.steps]


def run(
    script: Script,
    table: Mapping[tuple[str, ...], float],
    n: int,
    m: int,
    round_limit: int = 6,
    aggregation: str = "last",
) -> SearchResult:
    setting = EpisodeSetting(end=End.DECLARED, round_limit=round_limit)
    (result,) = beam.search(
        [TASK], ScriptedPolicy(script), table_scorer(table), setting, n=n, m=m, aggregation=aggregation
    )
    return result


def test_follows_the_scores_to_the_goal() -> None:
    # 1×2. Round 1: right .6 beats left .2. Round 2: finish .9 (terminated) beats right .4; N = 1 is reached.
    script = {(): ["left", "right"], ("right",): ["right", "finish"]}
    table = {("left",): 0.2, ("right",): 0.6, ("right", "right"): 0.4, ("right", "finish"): 0.9}
    result = run(script, table, n=1, m=2)
    assert actions(result) == ["right", "finish"]
    assert result.score == 0.9
    assert result.trajectory.outcome.success
    assert result.trajectory.stop is StopReason.DECLARED


def test_candidates_are_ranked_by_the_rule_that_is_named() -> None:
    # 2×1, two ways to the end: one was never judged high at first, the other never low.
    script = {(): ["right", "left"], ("right",): ["finish"], ("left",): ["finish"]}
    table = {("right",): 0.3, ("left",): 0.6, ("right", "finish"): 0.9, ("left", "finish"): 0.7}
    for rule, first, score in (("last", "right", 0.9), ("min", "left", 0.6), ("mean", "left", 0.65)):
        result = run(script, table, n=2, m=1, aggregation=rule)
        assert actions(result) == [first, "finish"]
        assert result.score == pytest.approx(score)
    with pytest.raises(ConfigError, match="unknown aggregation 'newest'"):
        run(script, table, n=2, m=1, aggregation="newest")


def test_the_root_is_expanded_n_times_m_times_and_every_beam_m_times() -> None:
    # 2×3, three distinct first actions; two are kept, each expanded three times.
    policy = ScriptedPolicy(
        {
            (): ["left", "right", "wait"],
            ("right",): ["finish"],
            ("wait",): ["finish"],
        }
    )
    table = {
        ("left",): 0.1,
        ("right",): 0.6,
        ("wait",): 0.5,
        ("right", "finish"): 0.9,
        ("wait", "finish"): 0.8,
    }
    beam.search([TASK], policy, table_scorer(table), SETTING, n=2, m=3)
    assert policy.calls == [6, 6]


def test_equal_actions_are_merged_before_ranking_and_before_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # 2×2: "right" three times and "left" once. Unmerged, two copies of "right" would fill the beam.
    carried_out: list[str] = []
    step = corridor.Corridor.step
    monkeypatch.setattr(corridor.Corridor, "step", lambda self, a: carried_out.append(a) or step(self, a))
    script = {(): ["right", " right ", "right", "left"], ("right",): ["finish"], ("left",): ["finish"]}
    table = {("right",): 0.9, ("left",): 0.1, ("right", "finish"): 0.3, ("left", "finish"): 0.7}
    result = run(script, table, n=2, m=2)
    assert carried_out == ["right", "left", "finish", "finish"]
    assert actions(result) == ["left", "finish"]
    assert result.env_steps == 4


def test_equal_actions_of_different_parents_stay_apart() -> None:
    # "finish" after "right" and "finish" after "left" are two candidates: both are scored.
    script = {(): ["right", "left"], ("right",): ["finish"], ("left",): ["finish"]}
    table = {("right",): 0.9, ("left",): 0.8, ("right", "finish"): 0.2, ("left", "finish"): 0.4}
    policy, scorer = ScriptedPolicy(script), table_scorer(table)
    (result,) = beam.search([TASK], policy, scorer, SETTING, n=2, m=1)
    assert scorer.seen[2:] == [("right", "finish"), ("left", "finish")]
    assert actions(result) == ["left", "finish"]


def test_a_finished_candidate_frees_its_slot() -> None:
    # 2×2. Round 1: finish .9, right .6, left .3, wait .1: finish takes no slot, so "left" is kept as well
    # and leads to the best end. With a slot taken by finish only "right" would be left.
    script = {
        (): ["finish", "right", "left", "wait"],
        ("right",): ["pit"],
        ("left",): ["finish"],
    }
    table = {
        ("finish",): 0.9,
        ("right",): 0.6,
        ("left",): 0.3,
        ("wait",): 0.1,
        ("right", "pit"): 0.2,
        ("left", "finish"): 0.95,
    }
    result = run(script, table, n=2, m=2)
    assert actions(result) == ["left", "finish"]


def test_a_finished_candidate_below_the_nth_unfinished_one_is_dropped() -> None:
    # 1×2: right .8 fills the beam before finish .7 is reached; it is returned although it gets worse.
    script = {(): ["right", "finish"], ("right",): ["pit"]}
    table = {("right",): 0.8, ("finish",): 0.7, ("right", "pit"): 0.1}
    result = run(script, table, n=1, m=2)
    assert actions(result) == ["right", "pit"]
    assert result.trajectory.stop is StopReason.FAILURE


def test_the_search_ends_when_n_have_terminated() -> None:
    # 1×2: finish .9 ranks first; "right" .8 would be kept, but one terminated candidate is enough.
    policy = ScriptedPolicy({(): ["finish", "right"]})
    scorer = table_scorer({("finish",): 0.9, ("right",): 0.8})
    (result,) = beam.search([TASK], policy, scorer, SETTING, n=1, m=2)
    assert policy.calls == [2]
    assert actions(result) == ["finish"]


def test_a_terminated_candidate_is_preferred_to_a_truncated_one_with_a_higher_score() -> None:
    # 2×2 with two rounds: "finish" .3 terminates in round 1; the others run into the limit with .9 and .8.
    script = {
        (): ["finish", "right", "left", "wait"],
        ("right",): ["right"],
        ("left",): ["left"],
    }
    table = {
        ("finish",): 0.6,
        ("right",): 0.5,
        ("left",): 0.4,
        ("wait",): 0.3,
        ("right", "right"): 0.9,
        ("left", "left"): 0.8,
    }
    result = run(script, table, n=2, m=2, round_limit=2)
    assert actions(result) == ["finish"]
    assert result.score == 0.6


def test_without_a_terminated_candidate_the_best_truncated_one_is_returned() -> None:
    script = {(): ["right", "left"], ("right",): ["right"], ("left",): ["left"]}
    table = {("right",): 0.5, ("left",): 0.4, ("right", "right"): 0.2, ("left", "left"): 0.7}
    result = run(script, table, n=2, m=1, round_limit=2)
    assert actions(result) == ["left", "left"]
    assert result.trajectory.stop is StopReason.ROUND_LIMIT


def test_truncated_candidates_do_not_end_the_search() -> None:
    # 1×2. "sleep" is cut off in round 1 and ranks first; if it counted, the search would end there.
    task = dataclasses.replace(TASK, spec={"goal": 1, "length": 4, "budget": 5})
    policy = ScriptedPolicy({(): ["sleep", "right"], ("right",): ["finish"]})
    scorer = table_scorer({("sleep",): 0.9, ("right",): 0.5, ("right", "finish"): 0.1})
    (result,) = beam.search([task], policy, scorer, SETTING, n=1, m=2)
    assert actions(result) == ["right", "finish"]
    assert result.score == 0.1


def test_a_failed_candidate_is_returned_only_where_nothing_else_exists() -> None:
    script = {(): ["crash", "right"], ("right",): ["right"]}
    table = {("right",): -5.0, ("right", "right"): -9.0}
    result = run(script, table, n=1, m=2, round_limit=2)
    assert actions(result) == ["right", "right"]

    alone = run({(): ["crash"]}, {}, n=1, m=2)
    assert alone.trajectory.stop is StopReason.ERROR
    assert alone.trajectory.error == "RuntimeError: the corridor collapsed"
    assert alone.score is None
    assert alone.env_steps == 1


def test_a_task_whose_environment_cannot_start_is_a_failed_result_beside_the_others() -> None:
    broken = dataclasses.replace(TASK, id="broken", spec={})
    scorer = FunctionScorer(lambda *_: 1.0)
    first, second = beam.search([broken, TASK], ScriptedPolicy({(): ["finish"]}), scorer, SETTING, n=1, m=1)
    assert first.trajectory.stop is StopReason.ERROR
    assert (first.score, first.sampled_tokens, first.scorer_tokens, first.env_steps) == (None, 0, 0, 0)
    assert second.trajectory.stop is StopReason.DECLARED


def test_equal_scores_keep_a_child_of_every_parent() -> None:
    # 2×2 under a constant score: after round 1 [right, left]; then right's and left's first children are
    # kept, not both children of "right".
    script = {
        (): ["right", "left"],
        ("right",): ["right", "wait"],
        ("left",): ["left", "wait"],
        ("right", "right"): ["finish"],
        ("left", "left"): ["finish"],
    }
    scorer = FunctionScorer(lambda *_: 0.5)
    beam.search([TASK], ScriptedPolicy(script), scorer, SETTING, n=2, m=2)
    assert set(scorer.seen[-2:]) == {("right", "right", "finish"), ("left", "left", "finish")}


def test_costs_are_counted_with_merged_and_discarded_candidates() -> None:
    # 1×3: three samples in round 1, two of them equal; three equal ones in round 2.
    script = {(): ["right", "right", "left"], ("right",): ["finish"]}
    table = {("right",): 0.9, ("left",): 0.1, ("right", "finish"): 0.8}
    result = run(script, table, n=1, m=3)
    lengths = {text: len(renderer().action_ids(text)) for text in ("right", "left", "finish")}
    assert result.sampled_tokens == 2 * lengths["right"] + lengths["left"] + 3 * lengths["finish"]
    assert result.policy_tokens == FED_PER_TOKEN * result.sampled_tokens
    assert result.scorer_tokens == 3 * 10  # right, left, right-finish
    assert result.env_steps == 3


def test_a_message_the_format_refuses_is_a_turn_as_in_every_other_strategy() -> None:
    refused = "Action: left\nAction: right"
    policy = ScriptedPolicy({(): [refused], ("",): ["Action: finish"]})
    policy.max_new_tokens = 64
    setting, scorer = EpisodeSetting(end=End.DECLARED, action_format="react"), FunctionScorer(lambda *_: 0.5)
    (result,) = beam.search([TASK], policy, scorer, setting, n=1, m=2)
    (single,) = best_of_n.search([TASK], policy, scorer, setting, n=1)
    assert result.trajectory == single.trajectory
    assert result.env_steps == single.env_steps == len(result.trajectory.steps) == 2


def test_siblings_do_not_share_an_environment() -> None:
    # From cell 1 one branch walks on and one stays; with a shared world both would end in cell 2.
    task = dataclasses.replace(TASK, spec={"goal": 2, "length": 4, "budget": None})
    script = {
        (): ["right"],
        ("right",): ["right", "wait"],
        ("right", "right"): ["finish"],
        ("right", "wait"): ["finish"],
    }

    def liking_the_waiter(_: Task, actions: tuple[str, ...]) -> float:
        return 0.9 if "wait" in actions else 0.5

    scorer = FunctionScorer(liking_the_waiter)
    (result,) = beam.search([task], ScriptedPolicy(script), scorer, SETTING, n=2, m=2)
    assert actions(result) == ["right", "wait", "finish"]
    assert not result.trajectory.outcome.success
    assert "You are in cell 1." in result.trajectory.messages[-3]["content"]


def position_score(task: Task, actions: tuple[str, ...]) -> float:
    """Nearness to the goal, a little noise from the history so that nothing is tied."""
    cell = 0
    for action in actions:
        cell = max(0, cell + {"left": -1, "right": 1}.get(action, 0))
    noise = sum(map(ord, "".join(actions))) % 17 / 100
    return 1.0 / (1.0 + abs(cell - int(task.spec["goal"]))) + noise


def test_a_batch_of_tasks_is_searched_as_each_task_alone() -> None:
    tasks = corridor.tasks(Split.TEST, 0, 5, length=5)
    together = beam.search(tasks, SeededPolicy(), FunctionScorer(position_score), SETTING, n=2, m=2)
    alone = [
        beam.search([task], SeededPolicy(), FunctionScorer(position_score), SETTING, n=2, m=2)[0]
        for task in tasks
    ]
    assert together == alone
    assert len({tuple(actions(result)) for result in together}) > 1  # or the comparison says little


def test_all_tasks_advance_with_one_call_of_the_policy_per_depth() -> None:
    tasks = corridor.tasks(Split.TEST, 0, 5, length=5)
    policy = SeededPolicy()
    results = beam.search(tasks, policy, FunctionScorer(position_score), SETTING, n=2, m=2)
    assert policy.calls[0] == 5 * 4
    assert len(policy.calls) <= corridor.ROUND_LIMIT
    assert len(policy.calls) >= max(len(r.trajectory.steps) for r in results)


def test_no_two_samples_of_a_call_share_a_seed() -> None:
    policy = SeededPolicy(("right", "left", "wait"))
    tasks = corridor.tasks(Split.TEST, 0, 3, length=5)
    beam.search(tasks, policy, FunctionScorer(position_score), SETTING, n=3, m=2)
    assert len(policy.seeds) == corridor.ROUND_LIMIT
    for seeds in policy.seeds:
        assert len(set(seeds)) == len(seeds) > 3


def test_branches_draw_different_actions_and_the_run_seed_changes_them() -> None:
    scorer = FunctionScorer(lambda *_: 0.5)
    beam.search([TASK], SeededPolicy(tuple("abcdefghij")), scorer, SETTING, n=2, m=4)
    first_round = {history for history in scorer.seen if len(history) == 1}
    assert len(first_round) > 1

    other = FunctionScorer(lambda *_: 0.5)
    beam.search([TASK], SeededPolicy(tuple("abcdefghij")), other, SETTING, run_seed=1, n=2, m=4)
    assert other.seen != scorer.seen

    again = FunctionScorer(lambda *_: 0.5)
    beam.search([TASK], SeededPolicy(tuple("abcdefghij")), again, SETTING, n=2, m=4)
    assert again.seen == scorer.seen


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_score_that_is_not_finite_is_refused(value: float) -> None:
    scorer = FunctionScorer(lambda _, actions: value if actions else 0.0)
    with pytest.raises(DataError, match=r"scorer toy gave step 1 the score (nan|inf) \(task 'by-hand'"):
        beam.search([TASK], SeededPolicy(), scorer, SETTING, n=1, m=2)


@pytest.mark.parametrize(("n", "m"), [(0, 4), (4, 0)])
def test_impossible_widths_are_refused(n: int, m: int) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        beam.search([TASK], SeededPolicy(), FunctionScorer(lambda *_: 0.0), SETTING, n=n, m=m)


def test_a_greedy_policy_is_refused_for_more_than_one_sample() -> None:
    scorer = FunctionScorer(lambda *_: 0.0)
    with pytest.raises(ConfigError, match="temperature 0"):
        beam.search([TASK], SeededPolicy(temperature=0.0), scorer, SETTING, n=2, m=1)
    (result,) = beam.search([TASK], SeededPolicy(["finish"], temperature=0.0), scorer, SETTING, n=1, m=1)
    assert actions(result) == ["finish"]


def test_a_model_policy_finds_the_same_with_and_without_kept_keys_and_values() -> None:
    tasks = corridor.tasks(Split.TEST, 0, 3, length=5)
    setting = EpisodeSetting(end=End.DECLARED, round_limit=3)

    def length_of_newest(_: Task, actions: tuple[str, ...]) -> float:
        return float(sum(map(ord, "".join(actions))) % 101)  # any function of the text that varies

    results, encoded = [], []
    for reuse in (False, True):
        model = tiny_model(renderer().tokenizer, size="xs", seed=3)
        policy = HFPolicy(model, renderer(), revision="r", max_new_tokens=4, reuse_cache=reuse)
        results.append(beam.search(tasks, policy, FunctionScorer(length_of_newest), setting, n=2, m=2))
        encoded.append(policy.tokens_encoded)
    for reference, cached in zip(*results, strict=True):
        assert cached.trajectory.token_ids == reference.trajectory.token_ids
        assert cached.trajectory.logprobs == pytest.approx(reference.trajectory.logprobs, abs=1e-4)
        same = dataclasses.replace(
            cached, trajectory=reference.trajectory, policy_tokens=reference.policy_tokens
        )
        assert same == reference
        assert cached.policy_tokens < reference.policy_tokens
    assert encoded[1] < encoded[0]
    assert encoded == [sum(result.policy_tokens for result in of_mode) for of_mode in results]


FULL: Script = {
    (): ["right", "left", "wait", "up"],
    ("right",): ["right", "wait"],
    ("left",): ["left", "wait"],
    ("right", "right"): ["finish"],
    ("right", "wait"): ["finish"],
    ("left", "left"): ["finish"],
}


def preferring_right(_: Task, history: tuple[str, ...]) -> float:
    return 0.9 * (history[:1] == ("right",)) + 0.05 * history.count("right") + 0.01 * len(history)


@pytest.mark.parametrize(
    ("max_children", "kept"),
    [
        (None, [("right", "right"), ("right", "wait")]),
        (2, [("right", "right"), ("right", "wait")]),
        (1, [("right", "right"), ("left", "left")]),
    ],
)
def test_children_of_one_parent_beyond_the_limit_are_dropped(
    max_children: int | None, kept: list[tuple[str, ...]]
) -> None:
    # 2×2. Both children of "right" rank above those of "left". All first actions have one parent: no limit.
    scorer = FunctionScorer(preferring_right)
    (result,) = beam.search(
        [TASK], ScriptedPolicy(FULL), scorer, SETTING, n=2, m=2, max_children=max_children
    )
    assert {history[:2] for history in scorer.seen if len(history) == 3} == set(kept)
    assert [node.kept for node in result.nodes[:4]] == [True, True, False, False]


def test_a_beam_without_steps_left_is_closed_and_its_best_candidate_returned() -> None:
    # 2×2 and 6 steps: four in round 1, then one child of "right" and one of "left". Both are cut off.
    scorer = FunctionScorer(preferring_right)
    (result,) = beam.search([TASK], ScriptedPolicy(FULL), scorer, SETTING, n=2, m=2, budget=6)
    assert actions(result) == ["right", "right"]
    assert result.trajectory.stop is StopReason.SEARCH_LIMIT
    assert [node.actions for node in result.nodes if node.stop] == [("right",), ("left",)]
    assert (result.env_steps, len(result.nodes)) == (6, 6)
