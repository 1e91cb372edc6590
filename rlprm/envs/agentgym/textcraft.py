"""AgentGym's TextCraft server as an environment module: ``protocol: textcraft`` of ``agentgym``."""

from __future__ import annotations

from typing import Any

from rlprm.envs import _openings
from rlprm.envs._instructions import TEXTCRAFT
from rlprm.envs.agentgym.connection import Server
from rlprm.envs.agentgym.dialects import (
    Dialect,
    Reply,
    Request,
    close_by_id,
    create_by_id,
    read_command,
    reset_by_id,
    step_by_id,
)
from rlprm.envs.agentgym.episode import ServedEpisode
from rlprm.envs.agentgym.tasks import MISSING, episode_of, no_expert, tasks_of
from rlprm.types import End, Message, Split, Task

ROUND_LIMIT = 20
"""Turns of an episode, AgentGym's number; AgentGym-RL has 30."""
FIXED_PHRASES: tuple[str, ...] = ()
CONCURRENT = 32


def _create(server: Server) -> int:
    return create_by_id(server, {"commands": None, "goal": None})


def _step(server: Server, session: int, action: str) -> Reply:
    return step_by_id(server, session, action, score="reward")


def _read(message: str) -> Request:
    """Read a message; "look" is taken for a look at the inventory."""
    request = read_command(message)
    return Request("inventory") if request.action.lower() == "look" else request


DIALECT = Dialect(
    name="textcraft",
    create=_create,
    reset=reset_by_id,
    step=_step,
    close=close_by_id,
    read=_read,
    refusals=("Could not ", "Wrong item format"),
    succeeds=lambda score: score == 1,
    definition="agentgym textcraft: reward 1",
    declared=False,
    counts=True,
)


def tasks(split: Split, start: int, count: int, **env_kwargs: Any) -> list[Task]:
    """Return tasks of a split; see :func:`rlprm.envs.agentgym.tasks.tasks_of`."""
    return tasks_of(__name__, DIALECT, split, start, count, env_kwargs)


def make(task: Task, *, end: End) -> ServedEpisode:
    """Build the episode of a task; see :func:`rlprm.envs.agentgym.tasks.episode_of`."""
    return episode_of(task, DIALECT, end=end)


def opening(*, end: End, style: str) -> list[Message]:
    """Return the messages that precede the first observation, those of our own TextCraft.

    Raises:
        ConfigError: for an unknown style.
    """
    return _openings.opening(TEXTCRAFT, end=end, style=style)


def demonstrate(task: Task, *, end: End) -> list[str]:
    """Raise ``DemonstrationError``: a server has no expert."""
    raise no_expert(task)


def requirements() -> str:
    """Return what is missing here: a server."""
    return MISSING
