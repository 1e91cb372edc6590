"""Environments that AgentGym's servers play, over HTTP.

    environment: agentgym
    env_kwargs:
      server: http://localhost:8000
      protocol: textcraft
      data_indices: {test: AgentGym/AgentEval}

Each protocol is an environment module of its own, which its tasks name: ``rlprm.envs.agentgym.babyai``,
``.textcraft``, ``.webshop``. A server that fails gives failed episodes with their cause, in limited time; one
that answers nothing at all ends the stage.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, cast

from rlprm.envs.agentgym.connection import NoServerError, ServerError
from rlprm.envs.agentgym.sessions import close_sessions
from rlprm.envs.agentgym.tasks import MISSING, held_out_of, no_expert
from rlprm.envs.base import Environment, EnvironmentModule
from rlprm.errors import ConfigError
from rlprm.types import End, Message, Split, Task

__all__ = [
    "FIXED_PHRASES",
    "PROTOCOLS",
    "ROUND_LIMIT",
    "NoServerError",
    "ServerError",
    "close_sessions",
    "demonstrate",
    "environment_of",
    "held_out",
    "make",
    "opening",
    "requirements",
    "tasks",
]

PROTOCOLS = ("babyai", "textcraft", "webshop")
ROUND_LIMIT = 20
FIXED_PHRASES: tuple[str, ...] = ()


def tasks(split: Split, start: int, count: int, *, protocol: str = "", **env_kwargs: Any) -> list[Task]:
    """Return tasks of a split of a server.

    Args:
        split: Which of the disjoint lists of data indices.
        start: Index of the first task in that list.
        count: How many tasks.
        protocol: What the server plays, one of :data:`PROTOCOLS`.
        env_kwargs: See :func:`rlprm.envs.agentgym.tasks.tasks_of`.

    Raises:
        ConfigError: for settings that make no sense, or a range the split does not have.
    """
    return _module(protocol).tasks(split, start, count, **env_kwargs)


def make(task: Task, *, end: End) -> Environment:
    """Build the episode of a task that ``tasks`` made.

    Raises:
        ConfigError: if it is none.
    """
    return _module(task.id.rpartition("_")[0]).make(task, end=end)


def opening(*, end: End, style: str) -> list[Message]:
    """Return no messages for style ``"none"``; instructions belong to a protocol.

    Raises:
        ConfigError: for another style.
    """
    if style != "none":
        raise ConfigError(f"prompt: got {style!r}, allowed without a protocol: none (see {__name__}.babyai)")
    return []


def demonstrate(task: Task, *, end: End) -> list[str]:
    """Raise ``DemonstrationError``: a server has no expert."""
    raise no_expert(task)


def requirements() -> str:
    """Return what is missing here: a server."""
    return MISSING


def environment_of(protocol: str) -> str:
    """Return the dotted path of a protocol's environment module.

    Raises:
        ConfigError: for an unknown protocol.
    """
    if protocol not in PROTOCOLS:
        raise ConfigError(f"agentgym protocol: got {protocol!r}, allowed: {', '.join(PROTOCOLS)}")
    return f"{__name__}.{protocol}"


def held_out(environment: str, env_kwargs: Mapping[str, Any]) -> frozenset[int]:
    """Return the data indices of dev and test in the settings of a protocol's environment module.

    None for another environment, and where the settings name no ``data_indices``.

    Raises:
        ConfigError: for indices that make no sense.
        ArtifactError: if there is no such data file.
        DataError: if it is damaged.
    """
    protocol = environment.rpartition(".")[2]
    indices = env_kwargs.get("data_indices")
    if indices is None or protocol not in PROTOCOLS or environment != environment_of(protocol):
        return frozenset()
    return held_out_of(protocol, indices)


def _module(protocol: str) -> EnvironmentModule:
    return cast(EnvironmentModule, importlib.import_module(environment_of(protocol)))
