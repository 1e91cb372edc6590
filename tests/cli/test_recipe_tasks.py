"""The tiny recipes of an environment: demonstrations, the PRM's rollouts and RL go over different tasks."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from rlprm import envs
from rlprm.envs.webshop.reward import Request
from rlprm.envs.webshop.tasks import shop_and_goal
from rlprm.rl.config import RLConfig
from rlprm.runtime.config import parse
from rlprm.stages.settings import CollectConfig, SFTStageConfig
from rlprm.types import Split, Task

RECIPES = Path(__file__).parents[2] / "recipes"
TINY = sorted(path.parent.name for path in RECIPES.glob("*/train_rl_tiny.yaml"))


def tasks_by_stage(folder: str) -> dict[str, list[Task]]:
    sft = parse(SFTStageConfig, ["--config", str(RECIPES / folder / "sft_tiny.yaml")])
    collect = parse(CollectConfig, ["--config", str(RECIPES / folder / "collect_tiny.yaml")])
    rl = parse(RLConfig, ["--config", str(RECIPES / folder / "train_rl_tiny.yaml")])
    visited = min(rl.num_tasks, rl.iterations * rl.tasks_per_iteration)
    tasks = envs.load(collect.environment).tasks
    return {
        "sft": tasks(Split.TRAIN, sft.first_task, sft.num_demonstrations, **sft.env_kwargs),
        "collect": tasks(Split.TRAIN, collect.first_task, collect.num_tasks, **collect.env_kwargs),
        "rl": tasks(Split.TRAIN, rl.first_task, visited, **rl.env_kwargs),
    }


def asked(request: Request) -> tuple[object, ...]:
    return request.product.query, tuple(sorted(request.attributes)), request.options


@pytest.mark.parametrize("folder", TINY)
def test_no_task_is_in_two_stages(folder: str) -> None:
    stages = {name: {task.id for task in tasks} for name, tasks in tasks_by_stage(folder).items()}
    assert [(a, b) for a, b in itertools.combinations(stages, 2) if stages[a] & stages[b]] == []


def test_no_request_to_the_shop_is_in_two_stages() -> None:
    """Not even in other words: a PRM of demonstrated requests would see a policy that knows the answers."""
    stages = {
        name: {asked(shop_and_goal(task)[1].request) for task in tasks}
        for name, tasks in tasks_by_stage("webshop").items()
    }
    assert [(a, b) for a, b in itertools.combinations(stages, 2) if stages[a] & stages[b]] == []
