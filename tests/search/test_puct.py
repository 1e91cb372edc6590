"""Tree search worked by hand in the corridor. The toy policy gives every token the log-probability -1."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from rlprm.errors import ConfigError
from rlprm.policies.base import Completion
from rlprm.search import SearchResult, puct
from rlprm.types import End, EpisodeSetting, Split, StopReason, Task
from tests.toys.agents import FunctionScorer, ScriptedPolicy, SeededPolicy, renderer, table_scorer

TASK = Task("tests.toys.corridor", "by-hand", Split.TEST, {"goal": 1, "length": 4, "budget": None})
SETTING = EpisodeSetting(end=End.DECLARED, round_limit=3)
SCRIPT = {
    (): ["right", "left"],
    ("right",): ["right", "finish"],
    ("left",): ["finish", "left"],
}
TABLE = {
    ("right",): 0.6,
    ("left",): 0.5,
    ("right", "right"): 0.2,
    ("left", "finish"): 0.9,
    ("left", "left"): 0.1,
}


def search(
    script: Mapping[tuple[str, ...], Sequence[str]], table: Mapping[tuple[str, ...], float], **settings: Any
) -> tuple[SearchResult, ScriptedPolicy, FunctionScorer]:
    policy, scorer = ScriptedPolicy(script), table_scorer(table)
    (result,) = puct.search([TASK], policy, scorer, SETTING, **{"m": 2, "per": "token", **settings})
    return result, policy, scorer


def test_simulations_follow_value_prior_and_visits() -> None:
    # P = 1/2 everywhere, v_0 = .5. The numbers are Q + P · sqrt(1 + ΣN) / (1 + N) at the root.
    # 1: both 0 + .5                              → right  .6
    # 2: right .6 + .707 / 2, left .5 + .707      → left   .5
    # 3: right .6 + .866 / 2, left .5 + .866 / 2  → right, then its first action: right-right .2
    # 4: right .4 + 1 / 3, left .5 + 1 / 2        → left, then finish .9, which ends
    # 5: right .4 + 1.118 / 3, left .7 + 1.118 / 3 → left, where only "left" is open: .1
    result, _, scorer = search(SCRIPT, TABLE, width=1, simulations=5)
    assert scorer.seen == [("right",), ("left",), ("right", "right"), ("left", "finish"), ("left", "left")]
    assert [node.visits for node in result.nodes] == [2, 3, 1, 1, 1]
    assert [step.action for step in result.trajectory.steps] == ["left", "finish"]
    assert (result.score, result.env_steps) == (0.9, 5)


def test_simulations_of_a_round_take_different_actions() -> None:
    # Both walks of the first round end at the root: right is under way, so the second one takes left. In the
    # second round right and left are equal but for the virtual visit, which sends the second walk to left.
    result, policy, scorer = search(
        SCRIPT, {**TABLE, ("left",): 0.6, ("right", "finish"): 0.3}, width=2, simulations=6
    )
    assert scorer.seen[:2] == [("right",), ("left",)]
    assert scorer.seen[2:4] == [("right", "right"), ("left", "finish")]
    assert policy.calls[:2] == [2, 4]
    assert [node.round for node in result.nodes[:4]] == [1, 1, 2, 2]


def test_trees_share_the_budget_and_the_result() -> None:
    one, two = (
        puct.search(
            [TASK],
            SeededPolicy(tuple("abcdefgh")),
            FunctionScorer(lambda *_: 0.5),
            SETTING,
            budget=12,
            **kwargs,
        )[0]
        for kwargs in ({"trees": 1}, {"trees": 2})
    )
    assert one.env_steps == two.env_steps == 12
    assert len({node.actions for node in two.nodes if node.parent is None}) > 1
    first_actions = [sum(node.parent is None for node in result.nodes) for result in (one, two)]
    assert first_actions[0] <= 4 < first_actions[1]


def test_a_tree_whose_episodes_have_all_ended_is_not_searched_further() -> None:
    result, policy, _ = search({(): ["finish", "pit"]}, {("finish",): 0.4, ("pit",): 0.3}, budget=50)
    assert result.env_steps == 2
    assert policy.calls == [2]
    assert [step.action for step in result.trajectory.steps] == ["finish"]


def test_the_steps_that_a_line_may_need_are_held_back_until_an_episode_has_terminated() -> None:
    # "wait" never ends the episode. Six steps, three of them simulations until the line is played out.
    result, _, _ = search(
        {
            (): ["wait", "left"],
            ("wait",): ["wait", "left"],
            ("left",): ["wait"],
            ("wait", "wait"): ["finish"],
        },
        {
            ("wait",): 0.9,
            ("left",): 0.1,
            ("wait", "wait"): 0.9,
            ("wait", "left"): 0.1,
            ("wait", "wait", "finish"): 0.8,
        },
        width=1,
        budget=4,
    )
    assert [step.action for step in result.trajectory.steps] == ["wait", "wait", "finish"]
    assert result.trajectory.stop is StopReason.DECLARED
    assert result.env_steps <= 4


def test_a_budget_below_one_episode_plays_one_line_and_closes_it() -> None:
    result, _, _ = search(
        {(): ["right"], ("right",): ["wait"]}, {("right",): 0.5, ("right", "wait"): 0.4}, budget=2
    )
    assert [step.action for step in result.trajectory.steps] == ["right", "wait"]
    assert result.trajectory.stop is StopReason.SEARCH_LIMIT
    assert (result.score, result.env_steps) == (0.4, 2)


def test_a_failed_action_is_not_entered_again_and_adds_no_visit() -> None:
    script = {(): ["crash", "right"], ("right",): ["finish"]}
    table = {("right",): 0.5, ("right", "finish"): 0.7}
    result, _, _ = search(script, table, width=1, budget=30)
    assert [step.action for step in result.trajectory.steps] == ["right", "finish"]
    assert [(node.actions, node.visits) for node in result.nodes] == [
        (("crash",), 0),
        (("right",), 2),
        (("finish",), 1),
    ]


class WithLogprobs(ScriptedPolicy):
    """Gives the messages of a call these log-probabilities in turn, all on the first token."""

    def __init__(self, script: Mapping[tuple[str, ...], Sequence[str]], logs: Sequence[float]) -> None:
        super().__init__(script)
        self.logs = logs

    def act(self, conversations: Any, seeds: Sequence[int]) -> list[Completion]:
        return [
            Completion(c.ids, (log, *[0.0] * (len(c.ids) - 1)))
            for c, log in zip(super().act(conversations, seeds), self.logs * len(conversations), strict=False)
        ]


def test_the_prior_is_the_probability_of_an_action_over_its_messages() -> None:
    # "finish" in two writings has .1 + .3, "pit" .2, sampled twice: .4 and .2 of .6. Without the sum, "pit"
    # would go first.
    policy = WithLogprobs(
        {(): ["pit", "finish", " finish ", "pit"]}, [math.log(p) for p in (0.2, 0.1, 0.3, 0.2)]
    )
    assert len({tuple(renderer().action_ids(text)) for text in ("finish", " finish ")}) == 2
    scorer = FunctionScorer(lambda *_: 0.5)
    (result,) = puct.search([TASK], policy, scorer, SETTING, m=4, width=1, simulations=4)
    assert scorer.seen[0] == ("finish",)
    assert result.nodes[0].samples == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"m": 0}, "m: got 0"),
        ({"width": 0}, "width: got 0"),
        ({"trees": 0}, "trees: got 0"),
        ({"simulations": 0}, "simulations: got 0"),
        ({"c_puct": -1.0}, "c_puct: got -1.0"),
        ({"c_puct": math.nan}, "c_puct: got nan"),
        ({"per": "word"}, "word"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        search(SCRIPT, TABLE, **settings)
