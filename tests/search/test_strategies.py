"""What holds for every search strategy of the package; a new file is tested without being mentioned."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

from rlprm import search
from rlprm.errors import ConfigError, DataError, UnknownComponentError
from rlprm.search import greedy
from rlprm.search.base import EndRank, end_rank
from rlprm.types import End, EpisodeSetting, Split, StopReason, Task
from tests.toys import corridor
from tests.toys.agents import FunctionScorer, SeededPolicy

TASKS = corridor.tasks(Split.TEST, 0, 4)
SETTING = EpisodeSetting(end=End.DECLARED)


def history_score(task: Task, actions: tuple[str, ...]) -> float:
    return sum(map(ord, "".join((task.id, *actions)))) % 89 / 89


def run(name: str, tasks: list[Task], scorer: FunctionScorer) -> list[search.SearchResult]:
    temperature = 0.0 if name == "greedy" else 1.0
    policy = SeededPolicy(("right", "finish", "left", "sleep"), temperature)
    return search.load(name).search(tasks, policy, scorer, SETTING)


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


@pytest.mark.parametrize("name", search.available())
def test_a_task_does_not_depend_on_its_neighbours(name: str) -> None:
    together = run(name, TASKS, FunctionScorer(history_score))
    reversed_order = run(name, TASKS[::-1], FunctionScorer(history_score))
    assert together == reversed_order[::-1]
    assert run(name, TASKS[1:2], FunctionScorer(history_score)) == together[1:2]


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
