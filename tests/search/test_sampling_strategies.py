"""Strategies that sample episodes from the start, worked by hand: halving, resampling, until acceptance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from rlprm import search
from rlprm.data.conversation import Conversation
from rlprm.errors import ConfigError
from rlprm.policies.base import Completion
from rlprm.search import best_of_n, halving, resample, sample_until_accepted
from rlprm.types import End, EpisodeSetting, Split, StopReason, Task
from tests.toys import corridor
from tests.toys.agents import FunctionScorer, ScriptedPolicy, SeededPolicy, table_scorer

TASK = Task("tests.toys.corridor", "by-hand", Split.TEST, {"goal": 1, "length": 4, "budget": None})
LIMIT = 4
SETTING = EpisodeSetting(end=End.DECLARED, round_limit=LIMIT)
Script = Mapping[tuple[str, ...], Sequence[str]]
Table = Mapping[tuple[str, ...], float]


def run(name: str, script: Script, table: Table, **settings: Any) -> search.SearchResult:
    (result,) = search.load(name).search(
        [TASK], ScriptedPolicy(script), table_scorer(table), SETTING, **settings
    )
    return result


def actions(result: search.SearchResult) -> list[str]:
    return [step.action for step in result.trajectory.steps]


FOUR: Script = {
    (): ["right", "left", "wait", "up"],
    ("right",): ["right"],
    ("left",): ["finish"],
    ("right", "right"): ["finish"],
}
VALUES: Table = {
    ("right",): 0.5,
    ("left",): 0.9,
    ("wait",): 0.1,
    ("up",): 0.3,
    ("right", "right"): 0.6,
    ("left", "finish"): 0.2,
    ("right", "right", "finish"): 0.4,
}


def test_halving_keeps_the_better_half_at_each_depth() -> None:
    # Depth 1: left .9 and right .5 of four go on. Depth 2: left-finish .2 has ended and cannot be dropped;
    # half of the one unfinished episode, rounded up, is right-right. It ends with .4.
    result = run("halving", FOUR, VALUES, n=4, depths=(1, 2))
    assert actions(result) == ["right", "right", "finish"]
    assert result.score == 0.4
    assert result.env_steps == result.distinct_steps == 4 + 2 + 1
    assert [node.actions for node in result.nodes if node.kept] == [
        ("right", "right", "finish"),
        ("left", "finish"),
    ]
    assert [node.actions for node in result.nodes if not node.kept] == [("wait",), ("up",)]


def test_halving_spends_what_is_saved_on_new_cohorts() -> None:
    # The cohort of four takes 4 + 2 + 2 steps at most, and 7 of the 12 here. Of the five left, two episodes
    # take 2 + 1 + 2 at most, and 3 here: right is dropped. Two steps are left for one episode.
    result = run("halving", FOUR, VALUES, n=4, depths=(1, 2), budget=12)
    assert [node.actions for node in result.nodes[4:]] == [
        ("right",),
        ("left", "finish"),
        ("right", "right"),
    ]
    assert result.nodes[-1].stop is StopReason.SEARCH_LIMIT
    assert result.env_steps == 12
    assert result.distinct_steps == 7  # the second and third cohort repeat actions of the first
    assert result.score == 0.4


def test_a_cohort_is_small_enough_to_end_within_the_budget() -> None:
    # Three would take 3 + 2 + 2 = 7 at most, two 2 + 1 + 2 = 5.
    result = run("halving", FOUR, VALUES, n=4, depths=(1, 2), budget=6)
    assert [node.actions for node in result.nodes[:2]] == [("right",), ("left", "finish")]


def test_halving_of_equal_values_keeps_the_first() -> None:
    script = {(): ["right", "left", "wait", "up"], ("right",): ["finish"], ("left",): ["finish"]}
    scorer = FunctionScorer(lambda *_: 0.5)
    (result,) = halving.search([TASK], ScriptedPolicy(script), scorer, SETTING, n=4, depths=(1,))
    assert [node.actions[0] for node in result.nodes if node.kept] == ["right", "left"]
    assert actions(result) == ["right", "finish"]


def test_halving_ranks_by_the_rule_that_is_named() -> None:
    script = {(): ["right", "left"], ("right",): ["right"], ("left",): ["left"]}
    script |= {("right", "right"): ["finish"], ("left", "left"): ["finish"]}
    table = {("right",): 0.1, ("right", "right"): 0.9, ("left",): 0.6, ("left", "left"): 0.7}
    table |= {("right", "right", "finish"): 0.5, ("left", "left", "finish"): 0.5}
    for rule, first in (("last", "right"), ("min", "left")):
        assert actions(run("halving", script, table, n=2, depths=(2,), aggregation=rule))[0] == first


TWO: Script = {
    (): ["right", "left"],
    ("right",): ["right"],
    ("left",): ["wait"],
    ("left", "wait"): ["finish"],
    ("right", "right"): ["finish"],
}
FALLING: Table = {
    ("right",): 0.75,
    ("right", "right"): 0.375,
    ("right", "right", "finish"): 0.9,
    ("left",): 0.4,
    ("left", "wait"): 0.35,
    ("left", "wait", "finish"): 0.3,
}


def test_an_episode_is_abandoned_when_its_value_has_fallen_from_its_best() -> None:
    # v_0 is .5. right .75, right-right .375: fallen by .375. left never lies more than .25 below v_0.
    result = run("resample", TWO, FALLING, n=2, margin=0.25)
    assert actions(result) == ["left", "wait", "finish"]
    assert result.env_steps == 2 + 3
    assert [(node.actions, node.kept) for node in result.nodes] == [
        (("right", "right"), False),
        (("left", "wait", "finish"), True),
    ]


def test_a_fall_by_the_margin_is_allowed() -> None:
    result = run("resample", TWO, FALLING, n=2, margin=0.375)
    assert actions(result) == ["right", "right", "finish"]


def test_the_fall_may_be_measured_from_the_initial_value() -> None:
    # right-right lies .125 below v_0, left-wait .15.
    result = run("resample", TWO, FALLING, n=2, margin=0.125, reference="initial")
    assert [node.kept for node in result.nodes] == [True, False]
    assert actions(result) == ["right", "right", "finish"]


def test_the_best_abandoned_episode_is_closed_and_returned_if_none_finished() -> None:
    # left is abandoned at .4, right-right at .375.
    result = run("resample", TWO, FALLING, n=2, margin=0.09)
    assert (actions(result), result.score) == (["left"], 0.4)
    assert result.trajectory.stop is StopReason.SEARCH_LIMIT


def varied(task: Task, history: tuple[str, ...]) -> float:
    return sum(map(ord, "".join((task.id, *history)))) % 23 / 23


@pytest.mark.parametrize("budget", range(1, 40))
@pytest.mark.parametrize("margin", [0.0, 0.5, 2.0])
def test_resampled_episodes_are_those_of_sampling_one_after_another(budget: int, margin: float) -> None:
    words = ("right", "left", "finish")
    (free,) = resample.search(
        [TASK], SeededPolicy(words), FunctionScorer(varied), SETTING, n=40, margin=margin
    )
    expected, left = [], budget
    for node in free.nodes:
        if left:
            expected.append(node.actions[:left])
        left -= min(left, len(node.actions))
    (result,) = resample.search(
        [TASK], SeededPolicy(words), FunctionScorer(varied), SETTING, budget=budget, margin=margin
    )
    assert [node.actions for node in sorted(result.nodes, key=lambda node: node.round)] == expected
    assert result.env_steps == budget


def test_a_margin_that_no_value_can_fall_by_is_best_of_n() -> None:
    for task in corridor.tasks(Split.TEST, 0, 5):
        policy, scorer = SeededPolicy(("right", "left", "finish")), FunctionScorer(varied)
        (a,) = resample.search([task], policy, scorer, SETTING, n=6, margin=2.0)
        (b,) = best_of_n.search([task], policy, scorer, SETTING, n=6)
        assert [node.actions for node in a.nodes] == [node.actions for node in b.nodes]
        assert a.env_steps == b.env_steps


@pytest.mark.parametrize("threshold", [0.0, 0.4, 0.8, 2.0])
def test_sampling_stops_with_the_first_candidate_of_best_of_n_that_is_accepted(threshold: float) -> None:
    for task in corridor.tasks(Split.TEST, 0, 5):
        policy, scorer = SeededPolicy(("right", "left", "finish")), FunctionScorer(varied)
        (pool,) = best_of_n.search([task], policy, scorer, SETTING, n=6)
        (result,) = sample_until_accepted.search([task], policy, scorer, SETTING, n=6, threshold=threshold)
        ranks = [node.rank or 0.0 for node in pool.nodes]
        accepted = next((i for i, rank in enumerate(ranks) if rank >= threshold), 5)
        assert [node.actions for node in result.nodes] == [
            node.actions for node in pool.nodes[: accepted + 1]
        ]
        assert result.env_steps == sum(len(node.actions) for node in result.nodes)
        if ranks[accepted] >= threshold:
            assert result.trajectory.sample == accepted


class InTurn(ScriptedPolicy):
    """Says the next line of a context in each call, where a scripted policy begins anew."""

    def act(self, conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[Completion]:
        completions = super().act(conversations, seeds)
        for conversation in conversations:
            history = tuple(step.action for step in conversation.steps)
            self.script = {**self.script, history: [*self.script[history][1:], self.script[history][0]]}
        return completions


def test_without_an_accepted_episode_the_best_one_is_returned() -> None:
    # The third episode is cut off after one step: it ranks below the terminated ones in spite of its score.
    script = {(): ["right", "left", "wait"], ("right",): ["finish"], ("left",): ["finish"]}
    table = {("right",): 0.1, ("right", "finish"): 0.3, ("left",): 0.1, ("left", "finish"): 0.4}
    table[("wait",)] = 0.45
    scorer = table_scorer(table)
    (result,) = sample_until_accepted.search([TASK], InTurn(script), scorer, SETTING, budget=5)
    assert (result.trajectory.sample, result.score) == (1, 0.4)
    assert scorer.seen == [("right", "finish"), ("left", "finish"), ("wait",)]
    assert result.nodes[2].stop is StopReason.SEARCH_LIMIT


def test_equal_episodes_are_scored_once() -> None:
    script = {(): ["right"], ("right",): ["finish"]}
    scorer = table_scorer({("right",): 0.1, ("right", "finish"): 0.3})
    (result,) = sample_until_accepted.search([TASK], ScriptedPolicy(script), scorer, SETTING, n=3)
    assert scorer.seen == [("right", "finish")]
    assert result.scorer_tokens == scorer.tokens
    assert [node.rank for node in result.nodes] == [0.3, 0.3, 0.3]


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("halving", {"n": 0}, "n: got 0"),
        ("halving", {"depths": (2, 2)}, r"depths: got \[2, 2\], allowed: rising"),
        ("halving", {"depths": (0,)}, r"depths: got \[0\]"),
        ("resample", {"n": 0}, "n: got 0"),
        ("resample", {"margin": -0.1}, "margin: got -0.1"),
        ("resample", {"margin": float("nan")}, "margin: got nan"),
        ("resample", {"reference": "mean"}, "reference: got 'mean', allowed: best, initial"),
        ("sample_until_accepted", {"n": 0}, "n: got 0"),
        ("sample_until_accepted", {"threshold": float("nan")}, "threshold: got nan"),
        ("step_best_of_k", {"k": 0}, "k: got 0"),
        ("beam", {"max_children": 0}, "max_children: got 0"),
    ],
)
def test_impossible_settings_are_refused(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(name, FOUR, VALUES, **settings)
