"""AgentGym's BabyAI server as an environment module: ``protocol: babyai`` of ``agentgym``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rlprm.envs import _openings
from rlprm.envs._instructions import BABYAI
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
"""Turns of an episode, AgentGym's number."""
FIXED_PHRASES: tuple[str, ...] = ()
CONCURRENT = 32

_FARTHEST = 1_000.0
"""From 0, of a sum of rewards. A reward is ``1 - 0.9 n / limit`` after ``n`` primitive actions; the server
does not stop at the limit."""


def _step(server: Server, session: int, action: str) -> Reply:
    # AgentGym's client takes the score, the sum of the rewards of all answers, which can pass 1.
    reply = step_by_id(server, session, action, score="score", least=-_FARTHEST, most=_FARTHEST)
    # The server pays a reward other than 0 if, and only if, the last primitive action fulfilled the mission.
    # It calls the episode done only if the reward is above 0.5. Otherwise each further answer adds the reward
    # once more, idle ones too. The first score other than 0 is therefore the success and its reward, which is
    # below 0 after 1.11 times minigrid's step limit. (A success at exactly that moment pays 0 and is missed.)
    return replace(reply, done=reply.done or reply.score != 0)


def _read(message: str) -> Request:
    """Read a message; AgentGym's instructions say "pick up" where its server knows "pickup"."""
    request = read_command(message)
    words = request.action.removeprefix("pick up ")
    return request if words == request.action else Request(f"pickup {words}")


DIALECT = Dialect(
    name="babyai",
    create=create_by_id,
    reset=reset_by_id,
    step=_step,
    close=close_by_id,
    read=_read,
    refusals=("The action is not recognized", "You cannot ", "There is a barrier in front of you"),
    succeeds=lambda score: score != 0,
    definition="agentgym babyai: first score other than 0",
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
    """Return the messages that precede the first observation, those of our own BabyAI.

    Raises:
        ConfigError: for an unknown style.
    """
    return _openings.opening(BABYAI, end=end, style=style)


def demonstrate(task: Task, *, end: End) -> list[str]:
    """Raise ``DemonstrationError``: a server has no expert."""
    raise no_expert(task)


def requirements() -> str:
    """Return what is missing here: a server."""
    return MISSING
