"""What holds for every search strategy of the package; a new file is tested without being mentioned."""

from __future__ import annotations

import ast
import inspect
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlprm import search
from rlprm.data.conversation import Conversation
from rlprm.errors import ConfigError, DataError, UnknownComponentError
from rlprm.policies.base import Completion
from rlprm.search import greedy
from rlprm.search.base import EndRank, end_rank
from rlprm.types import End, EpisodeSetting, Split, StopReason, Task
from tests.toys import corridor
from tests.toys.agents import FunctionScorer, SeededPolicy

TASKS = corridor.tasks(Split.TEST, 0, 4)
SETTING = EpisodeSetting(end=End.DECLARED)


def history_score(task: Task, actions: tuple[str, ...]) -> float:
    return sum(map(ord, "".join((task.id, *actions)))) % 89 / 89


WORDS = ("right", "finish", "left", "sleep", "right", "crash")


class CountingPolicy(SeededPolicy):
    """Says what each completion cost, and adds up what all of them cost."""

    def __init__(self, actions: Sequence[str] = WORDS, temperature: float = 1.0) -> None:
        super().__init__(actions, temperature)
        self.sampled = self.fed = 0

    def act(self, conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[Completion]:
        completions = [
            replace(completion, fed_tokens=100 + len(conversation))
            for completion, conversation in zip(super().act(conversations, seeds), conversations, strict=True)
        ]
        self.sampled += sum(len(completion.ids) for completion in completions)
        self.fed += sum(completion.fed_tokens for completion in completions)
        return completions


def policy_for(name: str, actions: Sequence[str] = WORDS) -> CountingPolicy:
    return CountingPolicy(actions, 0.0 if name == "greedy" else 1.0)


def run(
    name: str,
    tasks: Sequence[Task],
    scorer: FunctionScorer,
    policy: CountingPolicy | None = None,
    **settings: Any,
) -> list[search.SearchResult]:
    return search.load(name).search(tasks, policy or policy_for(name), scorer, SETTING, **settings)


VARIANTS: dict[str, list[dict[str, Any]]] = {
    "beam": [{"max_children": 1}, {"n": 2, "m": 3, "aggregation": "min"}],
    "halving": [{"n": 3, "depths": (1, 2, 3), "aggregation": "mean"}],
    "puct": [{"simulations": 9, "width": 1, "m": 3}, {"trees": 2, "width": 3, "c_puct": 4.0, "per": "token"}],
    "resample": [{"n": 3, "margin": 0.0}, {"margin": 0.5, "reference": "initial"}],
    "sample_until_accepted": [{"n": 2, "threshold": 0.9}],
    "step_best_of_k": [{"k": 2, "aggregation": "min"}],
}
"""Settings of a strategy beside its defaults."""
CASES = [(name, settings) for name in search.available() for settings in ({}, *VARIANTS.get(name, []))]
BUDGETS = (None, 1, 2, 3, 5, 8, 13, 21, 34)


def test_the_known_strategies_are_found() -> None:
    assert {"beam", "best_of_n", "greedy"} <= set(search.available())
    with pytest.raises(UnknownComponentError, match="known: beam, best_of_n, greedy"):
        search.load("bean")


@pytest.mark.parametrize("name", search.available())
def test_one_stopped_result_per_task_in_order_with_its_costs(name: str) -> None:
    results = run(name, TASKS, FunctionScorer(history_score))
    assert [result.trajectory.task for result in results] == TASKS
    for result in results:
        assert result.trajectory.stop is not None
        assert result.policy_tokens >= result.sampled_tokens >= result.trajectory.action_tokens > 0
        assert result.env_steps >= len(result.trajectory.steps) > 0
        assert (result.score is None) == (result.scorer_tokens == 0)


@pytest.mark.parametrize("budget", [None, 7, 30])
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_a_task_does_not_depend_on_its_neighbours(
    name: str, settings: dict[str, Any], budget: int | None
) -> None:
    together = run(name, TASKS, FunctionScorer(history_score), budget=budget, **settings)
    reversed_order = run(name, TASKS[::-1], FunctionScorer(history_score), budget=budget, **settings)
    assert together == reversed_order[::-1]
    for task, result in zip(TASKS, together, strict=True):
        assert run(name, [task], FunctionScorer(history_score), budget=budget, **settings) == [result]


@pytest.mark.parametrize("name", [name for name in search.available() if name != "greedy"])
def test_another_run_seed_is_another_search(name: str) -> None:
    first, again, other = (
        [result.nodes for result in run(name, TASKS, FunctionScorer(history_score), run_seed=seed)]
        for seed in (0, 0, 1)
    )
    assert first == again != other


@pytest.mark.parametrize("name", search.available())
def test_a_round_is_one_call_of_the_policy_for_all_tasks(name: str) -> None:
    together, *alone = [policy_for(name) for _ in range(len(TASKS) + 1)]
    run(name, TASKS, FunctionScorer(history_score), together, budget=30)
    for task, policy in zip(TASKS, alone, strict=True):
        run(name, [task], FunctionScorer(history_score), policy, budget=30)
    calls = [len(policy.calls) for policy in alone]
    assert max(calls) <= len(together.calls) < sum(calls)


@pytest.mark.parametrize("name", search.available())
def test_no_call_of_the_policy_is_wider_than_the_strategy_says(name: str) -> None:
    calls = []

    class Watching(CountingPolicy):
        def act(self, conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[Completion]:
            calls.append(len(conversations))
            return super().act(conversations, seeds)

    width = search.width(search.load(name), {})
    run(name, TASKS[:1], FunctionScorer(history_score), Watching(temperature=policy_for(name).temperature))
    assert max(calls) <= width


def test_of_a_strategy_that_says_nothing_every_known_setting_counts() -> None:
    class Own:
        @staticmethod
        def search(*, run_seed: int = 0, n: int = 2, k: int = 3, depth: int = 9) -> list[search.SearchResult]:
            return []

    assert search.width(Own, {}) == 6  # type: ignore[arg-type]
    assert search.width(Own, {"k": 5, "depth": 7}) == 10  # type: ignore[arg-type]


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_costs_are_exact_and_the_budget_is_never_exceeded(
    name: str, settings: dict[str, Any], budget: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []
    step = corridor.Corridor.step
    monkeypatch.setattr(corridor.Corridor, "step", lambda self, a: taken.append(a) or step(self, a))
    for task in TASKS:
        taken.clear()
        policy, scorer = policy_for(name), FunctionScorer(history_score)
        (result,) = run(name, [task], scorer, policy, budget=budget, **settings)
        assert result.trajectory.stop is not None
        assert len(taken) == result.env_steps <= (budget or math.inf)
        assert result.sampled_tokens == policy.sampled
        assert result.policy_tokens == policy.fed
        assert result.scorer_tokens == scorer.tokens * len(scorer.seen)


@pytest.mark.parametrize("budget", [None, 6, 25])
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_the_record_holds_every_action_and_leads_to_the_result(
    name: str, settings: dict[str, Any], budget: int | None
) -> None:
    for result in run(name, TASKS, FunctionScorer(history_score), budget=budget, **settings):
        nodes = result.nodes
        assert [node.number for node in nodes] == list(range(len(nodes)))
        for node in nodes:
            parent = None if node.parent is None else nodes[node.parent]
            assert parent is None or parent.number < node.number
            assert node.depth == (parent.depth if parent else 0) + len(node.actions)
            assert node.round > (parent.round if parent else 0)
            failed = node.stop is StopReason.ERROR
            assert len(node.scores) in {0, len(node.actions), len(node.actions) - failed}
            assert (node.rank is None) == (failed or not node.scores)
            assert (node.success is None) == (node.stop is None)
        assert sum(len(node.actions) for node in nodes if node.executed) == result.env_steps
        single = name == "step_best_of_k" and settings.get("n", 1) == 1
        merges = single or name in ("beam", "greedy")  # equal actions of one state
        assert (
            (result.distinct_steps == result.env_steps)
            if merges
            else (0 < result.distinct_steps <= result.env_steps)
        )
        (chosen,) = [node for node in nodes if node.chosen]
        assert chosen.kept
        assert (chosen.stop, chosen.rank) == (result.trajectory.stop, result.score)
        assert chosen.success == result.trajectory.outcome.success
        line, actions = [chosen], list[str]()
        while line[0].parent is not None:
            line.insert(0, nodes[line[0].parent])
        for node in line:
            assert node.executed
            actions += node.actions
        assert actions == [step.action for step in result.trajectory.steps]


@pytest.mark.parametrize("name", search.available())
def test_the_record_survives_json(name: str) -> None:
    for result in run(name, TASKS[:2], FunctionScorer(history_score)):
        lines = [json.dumps(node.to_row()) for node in result.nodes]
        assert tuple(search.Node.from_row(json.loads(line)) for line in lines) == result.nodes


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_a_failed_episode_is_chosen_only_if_there_is_no_other(
    name: str, settings: dict[str, Any], budget: int | None
) -> None:
    words = ("crash", "right", "crash", "finish")
    for result in run(
        name, TASKS, FunctionScorer(history_score), policy_for(name, words), budget=budget, **settings
    ):
        if result.trajectory.stop is StopReason.ERROR:
            assert {node.stop for node in result.nodes} <= {None, StopReason.ERROR}
            assert result.score is None


@pytest.mark.parametrize("name", search.available())
def test_a_task_whose_environment_does_not_start_is_a_failed_result_beside_the_others(name: str) -> None:
    broken = replace(TASKS[0], id="broken", spec={})
    first, second = run(name, [broken, TASKS[1]], FunctionScorer(history_score), budget=10)
    assert first.trajectory.stop is StopReason.ERROR
    assert (first.score, first.sampled_tokens, first.scorer_tokens, first.env_steps) == (None, 0, 0, 0)
    assert [second] == run(name, TASKS[1:2], FunctionScorer(history_score), budget=10)


@pytest.mark.parametrize("name", search.available())
def test_no_budget_below_one_step_is_accepted(name: str) -> None:
    with pytest.raises(ConfigError, match="budget: got 0, allowed: at least 1"):
        run(name, TASKS[:1], FunctionScorer(history_score), budget=0)


@pytest.mark.parametrize("name", [name for name in search.available() if name != "greedy"])
def test_a_greedy_policy_is_refused_where_samples_are_compared(name: str) -> None:
    with pytest.raises(ConfigError, match="temperature 0"):
        run(name, TASKS[:1], FunctionScorer(history_score), CountingPolicy(temperature=0.0))


@pytest.mark.parametrize("name", search.available())
def test_every_budget_has_a_default_and_can_only_be_named(name: str) -> None:
    parameters = list(inspect.signature(search.load(name).search).parameters.values())
    assert [p.name for p in parameters[:5]] == ["tasks", "policy", "scorer", "setting", "run_seed"]
    for parameter in parameters[4:]:
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.default is not parameter.empty


@pytest.mark.parametrize("name", search.available())
def test_no_strategy_imports_another_or_a_reward_model(name: str) -> None:
    tree = ast.parse(Path(inspect.getfile(search.load(name))).read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    imported |= {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    others = {f"rlprm.search.{other}" for other in search.available()}
    forbidden = {module for module in imported if module in others or module.startswith("rlprm.prm")}
    assert not forbidden
    assert "rlprm.search.base" in imported


def test_greedy_takes_the_most_likely_action_and_asks_no_scorer() -> None:
    (result,) = greedy.search(TASKS[:1], SeededPolicy(("finish", "left"), 0.0), None, SETTING)
    assert [step.action for step in result.trajectory.steps] == ["finish"]
    assert result.score is None
    with pytest.raises(ConfigError, match=r"temperature 0, got 1\.0"):
        greedy.search(TASKS[:1], SeededPolicy(), None, SETTING)


def test_terminated_ranks_above_truncated_above_failed() -> None:
    assert EndRank.TERMINATED > EndRank.TRUNCATED > EndRank.FAILED
    groups: dict[EndRank, set[StopReason]] = {rank: set() for rank in EndRank}
    for stop in StopReason:
        groups[end_rank(stop)].add(stop)
    assert groups == {
        EndRank.TERMINATED: {StopReason.SUCCESS, StopReason.FAILURE, StopReason.DECLARED},
        EndRank.TRUNCATED: {
            StopReason.ENV_LIMIT,
            StopReason.ROUND_LIMIT,
            StopReason.CONTEXT_LIMIT,
            StopReason.SEARCH_LIMIT,
        },
        EndRank.FAILED: {StopReason.ERROR},
    }
    with pytest.raises(DataError, match="unfinished"):
        end_rank(None)
