"""Tasks, episodes and a policy for tests with a server of AgentGym's in a thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rlprm import envs
from rlprm.envs.agentgym.episode import ServedEpisode
from rlprm.types import End, Split, Task
from tests.toys.agentgym_server import AgentGymServer, Handler, world_task
from tests.toys.agents import SeededPolicy

Fault = Callable[[Handler], bool]
OK = {"observation": "o", "reward": 0, "score": 0, "done": False, "state": "o", "info": None}


def tasks(server: AgentGymServer, count: int = 1, **settings: Any) -> list[Task]:
    settings = {"timeout": 5.0, "retries": 2, **settings}
    return envs.load("agentgym").tasks(
        Split.TEST, 0, count, server=server.url, protocol=server.protocol,
        data_indices={"test": [1, "2-20"]}, **settings,
    )  # fmt: skip


def episode(server: AgentGymServer, **settings: Any) -> ServedEpisode:
    (task,) = tasks(server, **settings)
    made = envs.load(task.environment).make(task, end=End.ON_SUCCESS)
    assert isinstance(made, ServedEpisode)
    return made


def solution(protocol: str, data_idx: int) -> list[str]:
    return envs.load(protocol).demonstrate(world_task(protocol, data_idx), end=End.ON_SUCCESS)


def policy(protocol: str, data_idx: int) -> SeededPolicy:
    """Draws from the actions of a solution and a few others."""
    made = SeededPolicy([*dict.fromkeys(solution(protocol, data_idx)), "inventory", "turn left"])
    made.context_length = 100_000
    made.max_new_tokens = 200
    return made
