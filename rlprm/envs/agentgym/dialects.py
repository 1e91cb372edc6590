"""What the servers of AgentGym's environments have in common, and what a client believes of their answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rlprm.envs.agentgym.connection import Repeat, Server, ServerError

__all__ = [
    "Dialect",
    "Reply",
    "Request",
    "close_by_id",
    "create_by_id",
    "flag_in",
    "read_command",
    "reset_by_id",
    "score_in",
    "session_id",
    "step_by_id",
    "text",
]

_LONGEST_QUOTE = 200  # characters

_TWO_ACTIONS = "Error: Only one 'Action' is allowed per response. Please adjust your response."
_ACTION = re.compile(r"Action:\s*(.*?)(?=\n|$)")
_DROPPED = re.compile(r"[^A-Za-z0-9, ]+")


@dataclass(frozen=True)
class Request:
    """An action in the form that the server gets, or the answer to an action that is not sent."""

    action: str
    refusal: str | None = None
    """If set, the observation to give instead of asking the server."""


@dataclass(frozen=True)
class Reply:
    """What a server answers to an action."""

    observation: str
    score: float
    """Of the episode so far, as the server gives it."""
    done: bool


@dataclass(frozen=True)
class Dialect:
    """How to talk to the servers of one environment. Each call raises ``ServerError`` where that fails."""

    name: str
    """AgentGym's name of the environment, with which its task ids begin."""
    create: Callable[[Server], int]
    """Open a session and return its number."""
    reset: Callable[[Server, int, int], str]
    """Begin the episode of a data index in a session; returns the first observation."""
    step: Callable[[Server, int, str], Reply]
    """Carry out an action in a session."""
    close: Callable[[Server, int], Any]
    """Close a session."""
    read: Callable[[str], Request]
    """Turns the message of an agent into a request, as AgentGym's client does."""
    refusals: tuple[str, ...]
    """How observations begin that answer an action which could not be carried out."""
    succeeds: Callable[[float], bool]
    """Whether a score is that of a success."""
    definition: str
    """The rule behind success."""
    declared: bool
    """Whether it is the agent who ends an episode, by an action of its own."""
    counts: bool
    """Whether its servers number sessions in the order of opening, from the start again when they are started
    again, and give no number twice; others draw numbers at random."""


def read_command(message: str) -> Request:
    """Read a message as AgentGym's BabyAI and TextCraft clients do; without ``Action:`` it is the action."""
    actions = _ACTION.findall(message)
    if len(actions) > 1:
        return Request("", refusal=_TWO_ACTIONS)
    words = (actions[0] if actions else message).split()
    return Request(" ".join(_DROPPED.sub("", " ".join(words)).split()))


def create_by_id(server: Server, body: Any = None) -> int:
    """Open a session as the BabyAI and TextCraft servers do."""
    where = f"{server.url}/create"
    # One that was opened without our being told its number could never be closed: not twice.
    return session_id(_object(server.post("/create", body, repeat=Repeat.REFUSED), where).get("id"), where)


def reset_by_id(server: Server, session: int, data_idx: int) -> str:
    """Begin an episode as the BabyAI and TextCraft servers do; returns its first observation."""
    where = f"{server.url}/reset"
    body = {"id": session, "data_idx": data_idx}
    answer = _object(server.post("/reset", body, repeat=Repeat.HARMLESS), where)
    return text(answer.get("observation"), where)


def step_by_id(
    server: Server, session: int, action: str, *, score: str, least: float = 0.0, most: float = 1.0
) -> Reply:
    """Carry out an action as the BabyAI and TextCraft servers do.

    Args:
        server: where.
        session: in which of its sessions.
        action: in the form that the server gets.
        score: what the score is called in the answer.
        least: the lowest allowed score and reward.
        most: the highest.
    """
    where = f"{server.url}/step"
    answer = _object(server.post("/step", {"id": session, "action": action}, repeat=Repeat.UNSENT), where)
    score_in(answer, "reward", where, least=least, most=most)
    reached = score_in(answer, score, where, least=least, most=most)
    return Reply(text(answer.get("observation"), where), reached, flag_in(answer, "done", where))


def close_by_id(server: Server, session: int) -> None:
    """Close a session as the BabyAI and TextCraft servers do."""
    server.post("/close", {"id": session}, repeat=Repeat.HARMLESS)


def _object(answer: Any, where: str) -> Mapping[str, Any]:
    """Return an answer that has to be an object and no error: these servers report errors with status 200."""
    if not isinstance(answer, dict):
        raise ServerError(f"{where}: got {_shown(answer)}, allowed: an object")
    if "error" in answer:
        raise ServerError(f"{where}: the server says {_shown(answer['error'])}")
    return answer


def session_id(value: Any, where: str) -> int:
    """Return a session's number.

    Raises:
        ServerError: where it is none.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise ServerError(f"{where}: id: got {_shown(value)}, allowed: an integer")
    return value


def text(value: Any, where: str) -> str:
    """Return an observation; half characters, which no file could hold, become question marks.

    Raises:
        ServerError: where it is none.
    """
    if not isinstance(value, str):
        raise ServerError(f"{where}: observation: got {_shown(value)}, allowed: text")
    return value.encode("utf-8", "replace").decode("utf-8")


def flag_in(answer: Mapping[str, Any], name: str, where: str) -> bool:
    """Return a truth value of an answer.

    Raises:
        ServerError: where it is none.
    """
    value = answer.get(name)
    if not isinstance(value, bool):
        raise ServerError(f"{where}: {name}: got {_shown(value)}, allowed: true or false")
    return value


def score_in(
    answer: Mapping[str, Any], name: str, where: str, *, least: float = 0.0, most: float = 1.0
) -> float:
    """Return a score of an answer, in [least, most].

    Raises:
        ServerError: where it is none.
    """
    value = answer.get(name)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not least <= value <= most:
        raise ServerError(f"{where}: {name}: got {_shown(value)}, allowed: {least:g} to {most:g}")
    return float(value)


def _shown(value: Any) -> str:
    quote = repr(value)
    return quote if len(quote) <= _LONGEST_QUOTE else quote[:_LONGEST_QUOTE] + "..."
