"""What every environment promises, kept by those of a server as far as a server can."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from rlprm import envs
from rlprm.types import End, Split, Task
from tests.envs import test_contract as contract
from tests.toys.agentgym_server import PROTOCOLS, serving, world_task


def of_server(protocol: str, url: str) -> ModuleType:
    """An environment module with a server's episodes and the expert of the world behind it."""
    served = envs.load(f"rlprm.envs.agentgym.{protocol}")
    module = ModuleType(f"agentgym {protocol}")  # outcomes are named after it
    indices = {"train": "100-199", "dev": "200-299", "test": "0-99"}

    def tasks(split: Split, start: int, count: int, **settings: Any) -> list[Task]:
        made = served.tasks(split, start, count, server=url, data_indices=indices, timeout=20, **settings)
        return [Task(module.__name__, t.id, t.split, t.spec) for t in made]

    def demonstrate(task: Task, *, end: End) -> list[str]:
        return envs.load(protocol).demonstrate(world_task(protocol, task.spec["data_idx"]), end=end)

    vars(module).update(vars(served), __name__=module.__name__, tasks=tasks, demonstrate=demonstrate)
    del module.requirements
    return module


@pytest.fixture(params=PROTOCOLS)
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Of an environment module that ``rlprm.envs`` finds."""
    with serving(request.param) as server:
        module = of_server(request.param, server.url)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        really = envs.load
        monkeypatch.setattr(envs, "load", lambda given: module if given == module.__name__ else really(given))
        yield module.__name__


@pytest.mark.parametrize(
    "check",
    [
        contract.test_the_same_task_and_actions_give_the_same_episode,
        contract.test_fork_continues_like_the_original_and_apart_from_it,
        contract.test_any_action_string_is_answered,
        contract.test_expert_succeeds_within_the_round_limit_and_the_episode_stops,
        contract.test_outcome_is_valid_right_after_reset,
    ],
)
def test_episodes(check: Callable[[str, End], None], name: str) -> None:
    check(name, End.ON_SUCCESS)


@pytest.mark.parametrize(
    "check",
    [
        contract.test_splits_have_no_instance_in_common,
        contract.test_task_ranges_are_slices_of_one_list,
        contract.test_impossible_task_settings_are_config_errors,
        contract.test_tasks_survive_pickling,
        contract.test_an_unknown_opening_style_is_a_config_error,
        contract.test_fixed_phrases_are_distinct_and_not_empty,
    ],
)
def test_tasks_and_texts(check: Callable[[str], None], name: str) -> None:
    check(name)


@pytest.mark.parametrize("style", ["none", "short", "agentgym"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_openings(style: str, protocol: str) -> None:
    for end in End:
        contract.test_opening_ends_before_the_users_turn(f"rlprm.envs.agentgym.{protocol}", end, style)
