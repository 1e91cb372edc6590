"""AgentGym's WebShop server as an environment module: ``protocol: webshop`` of ``agentgym``."""

from __future__ import annotations

from typing import Any

from rlprm.envs import _openings
from rlprm.envs._instructions import WEBSHOP
from rlprm.envs.agentgym.connection import Repeat, Server, ServerError
from rlprm.envs.agentgym.dialects import Dialect, Reply, Request, flag_in, score_in, session_id, text
from rlprm.envs.agentgym.episode import ServedEpisode
from rlprm.envs.agentgym.tasks import MISSING, episode_of, no_expert, tasks_of
from rlprm.types import End, Message, Split, Task

ROUND_LIMIT = 10
"""Turns of an episode, AgentGym's number."""
FIXED_PHRASES: tuple[str, ...] = ()
CONCURRENT = 32


def _create(server: Server) -> int:
    return session_id(server.post("/create", repeat=Repeat.REFUSED), f"{server.url}/create")


def _reset(server: Server, session: int, data_idx: int) -> str:
    answer = server.post("/reset", {"env_idx": session, "session_id": data_idx}, repeat=Repeat.HARMLESS)
    if not isinstance(answer, list) or len(answer) != 2:
        raise ServerError(f"{server.url}/reset: got {str(answer)[:200]!r}, allowed: an observation and null")
    # AgentGym's client takes the observation from here, too.
    return text(server.get(f"/observation?env_idx={session}"), f"{server.url}/observation")


def _step(server: Server, session: int, action: str) -> Reply:
    where = f"{server.url}/step"
    answer = server.post("/step", {"env_idx": session, "action": action}, repeat=Repeat.UNSENT)
    if not isinstance(answer, dict):
        raise ServerError(f"{where}: got {str(answer)[:200]!r}, allowed: an object")
    reward, done = score_in(answer, "reward", where), flag_in(answer, "done", where)
    return Reply(text(answer.get("state"), where), reward, done)


def _close(server: Server, session: int) -> None:
    server.post("/close", {"env_idx": session}, repeat=Repeat.HARMLESS)


def _read(message: str) -> Request:
    """Read a message as AgentGym's client (at its head): what follows the last ``Action:``, or all of it.

    A message without either is sent as an empty action, which the server answers with the bare page.
    """
    said = message.removesuffix("</s>")
    _, marker, action = said.rpartition("Action:")
    if not marker and "search[" not in said and "click[" not in said:
        return Request("")
    return Request(action.strip().encode("utf-8", "replace").decode("utf-8"))


DIALECT = Dialect(
    name="webshop",
    create=_create,
    reset=_reset,
    step=_step,
    close=_close,
    read=_read,
    refusals=(),  # an action that the page does not have is answered with the page, too
    succeeds=lambda score: score == 1,
    definition="agentgym webshop: reward 1",
    declared=True,
    counts=False,
)


def tasks(split: Split, start: int, count: int, **env_kwargs: Any) -> list[Task]:
    """Return tasks of a split; see :func:`rlprm.envs.agentgym.tasks.tasks_of`."""
    return tasks_of(__name__, DIALECT, split, start, count, env_kwargs)


def make(task: Task, *, end: End) -> ServedEpisode:
    """Build the episode of a task; see :func:`rlprm.envs.agentgym.tasks.episode_of`."""
    return episode_of(task, DIALECT, end=end)


def opening(*, end: End, style: str) -> list[Message]:
    """Return the messages that precede the first page, those of our own WebShop.

    Raises:
        ConfigError: for an unknown style.
    """
    return _openings.opening(WEBSHOP, end=end, style=style)


def demonstrate(task: Task, *, end: End) -> list[str]:
    """Raise ``DemonstrationError``: a server has no expert."""
    raise no_expert(task)


def requirements() -> str:
    """Return what is missing here: a server."""
    return MISSING
