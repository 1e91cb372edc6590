"""The tasks of a server: data indices and splits."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, TypeGuard

from rlprm.components import check_kwargs
from rlprm.envs.agentgym.connection import server_at
from rlprm.envs.agentgym.dialects import Dialect
from rlprm.envs.agentgym.episode import ServedEpisode
from rlprm.envs.agentgym.items import data_index, read_items
from rlprm.envs.agentgym.sessions import sessions_at
from rlprm.errors import ConfigError, DemonstrationError
from rlprm.types import End, Split, Task

__all__ = ["MISSING", "episode_of", "held_out_of", "no_expert", "tasks_of"]

MISSING = (
    "give the URL of an AgentGym server that is running, as in --env_kwargs.server http://localhost:8000"
)

_RANGE = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")
_MOST_INDICES = 1_000_000  # of a range
_LONGEST_TIMEOUT = 86_400.0  # seconds, a day; sockets refuse times beyond some hundred years
_UNANSWERED_STARTS = 4
_DEV_EVERY = 10


def tasks_of(
    environment: str, dialect: Dialect, split: Split, start: int, count: int, env_kwargs: Mapping[str, Any]
) -> list[Task]:
    """Return tasks ``start ... start + count - 1`` of a split.

    Args:
        environment: dotted path of the module that plays them.
        dialect: of the server.
        split: which of the lists of indices.
        start: index of the first task in that list.
        count: how many tasks.
        env_kwargs: the keyword arguments of :func:`tasks_at`.

    Raises:
        ConfigError: for settings that make no sense, or a range the split does not have.
        ArtifactError: if there is no such data file.
        DataError: if it is damaged.
    """
    check_kwargs(tasks_at, env_kwargs, f"agentgym ({dialect.name})")
    return tasks_at(environment, dialect, Split(split), start, count, **env_kwargs)


def tasks_at(
    environment: str,
    dialect: Dialect,
    split: Split,
    start: int,
    count: int,
    *,
    server: str = "",
    data_indices: Mapping[str, Any] | None = None,
    timeout: float = 60.0,
    retries: int = 5,
    max_unanswered_starts: int = _UNANSWERED_STARTS,
) -> list[Task]:
    """Return tasks, see ``tasks_of``.

    Args:
        environment: dotted path of the module that plays them.
        dialect: of the server.
        split: which of the lists of indices.
        start: index of the first task in that list.
        count: how many tasks.
        server: URL, such as ``http://localhost:8000``.
        data_indices: split → its indices: a number, a range ``"0-373"`` (both ends belong to it), a data
            file or hub id (AgentTraj, AgentEval), or a list of such. No index may be in two splits. AgentGym
            has no dev split: where none is named, it is every tenth index of train.
        timeout: seconds until a request is given up, its repeats included.
        retries: how often at most a request is repeated that does no harm twice.
        max_unanswered_starts: after how many episodes in a row that could not begin because the server
            answered nothing at all a stage ends with ``NoServerError``.
    """
    if not isinstance(server, str) or not server:
        raise ConfigError(f"agentgym server: got {server!r}; {MISSING}")
    if not _is_timeout(timeout):
        raise ConfigError(
            f"agentgym timeout: got {timeout!r}, allowed: a number of seconds above 0, "
            f"{_LONGEST_TIMEOUT:,.0f} (a day) at most"
        )
    if not isinstance(retries, int) or isinstance(retries, bool) or retries < 0:
        raise ConfigError(f"agentgym retries: got {retries!r}, allowed: 0 or more")
    if not _is_count(max_unanswered_starts):
        raise ConfigError(
            f"agentgym max_unanswered_starts: got {max_unanswered_starts!r}, allowed: 1 or more"
        )
    url = server_at(server, float(timeout), retries).url
    split_indices = _indices(dialect.name, data_indices)[split]
    if start < 0 or count < 0 or start + count > len(split_indices):
        raise ConfigError(
            f"agentgym tasks: data_indices.{split.value} has {len(split_indices)} data indices of "
            f"{dialect.name}, got start {start} and count {count} (dev is every tenth of train where none is "
            "named)"
        )
    address = {
        "server": url,
        "timeout": float(timeout),
        "retries": retries,
        "max_unanswered_starts": max_unanswered_starts,
    }
    return [
        Task(environment, f"{dialect.name}_{index}", split, {**address, "data_idx": index})
        for index in split_indices[start : start + count]
    ]


def episode_of(task: Task, dialect: Dialect, *, end: End) -> ServedEpisode:
    """Build the episode of a task; the server is asked when it begins.

    Raises:
        ConfigError: if the task is not one of a server, or ``end`` is not how the server ends episodes.
    """
    server, index, timeout, retries = (task.spec.get(n) for n in ("server", "data_idx", "timeout", "retries"))
    starts = task.spec.get("max_unanswered_starts", _UNANSWERED_STARTS)
    if (
        not isinstance(server, str)
        or not isinstance(index, int)
        or not _is_timeout(timeout)
        or not isinstance(retries, int)
        or not _is_count(starts)
    ):
        raise ConfigError(f"not a task of an AgentGym server: {task.id!r} with spec {dict(task.spec)!r}")
    if End(end) is End.DECLARED and not dialect.declared:
        raise ConfigError(
            f"end: got declared, allowed: on_success (AgentGym's {dialect.name} server ends the episode "
            "when the goal is met)"
        )
    server_at(server, float(timeout), retries)  # raises now if it is no URL
    sessions = partial(sessions_at, server, float(timeout), retries, starts, dialect)
    return ServedEpisode(sessions, dialect, index)


def held_out_of(name: str, data_indices: Any) -> frozenset[int]:
    """Return the data indices of dev and test, of which nothing may be learned.

    Args:
        name: AgentGym's, of the environment.
        data_indices: as for :func:`tasks_at`.

    Raises:
        ConfigError: for indices that make no sense.
        ArtifactError: if there is no such data file.
        DataError: if it is damaged.
    """
    indices = _indices(name, data_indices)
    return frozenset(indices[Split.DEV]) | frozenset(indices[Split.TEST])


def no_expert(task: Task) -> DemonstrationError:
    """Return the error of whoever asks a server for a demonstration."""
    return DemonstrationError(
        f"no demonstration of {task.id}: AgentGym's servers have no expert; train on AgentTraj instead, "
        "as in rlprm sft --demonstrations AgentGym/AgentTraj-L"
    )


def _indices(name: str, data_indices: Any) -> dict[Split, list[int]]:
    if not isinstance(data_indices, Mapping) or not data_indices or set(data_indices) - set(Split):
        raise ConfigError(
            f"agentgym data_indices: got {data_indices!r}, allowed: train, dev, test with indices or data "
            "files each, as in {train: 0-373, test: AgentGym/AgentEval}"
        )
    by_split = {split: list(dict.fromkeys(_expand(name, data_indices.get(split, [])))) for split in Split}
    owner: dict[int, Split] = {}
    for split, indices in by_split.items():
        for index in indices:
            if owner.setdefault(index, split) is not split:
                raise ConfigError(
                    f"agentgym data_indices: {index} is in {owner[index].value} and in {split.value}, "
                    "allowed: splits that have nothing in common"
                )
    if Split.DEV not in data_indices:
        by_split[Split.DEV] = by_split[Split.TRAIN][_DEV_EVERY - 1 :: _DEV_EVERY]
        del by_split[Split.TRAIN][_DEV_EVERY - 1 :: _DEV_EVERY]
    return by_split


def _expand(name: str, given: Any) -> Iterator[int]:
    """Yield the indices that a setting stands for."""
    if isinstance(given, list):
        for part in given:
            yield from _expand(name, part)
    elif isinstance(given, int) and not isinstance(given, bool) and given >= 0:
        yield given
    elif isinstance(given, str) and (match := _RANGE.fullmatch(given)):
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last < first + _MOST_INDICES:
            raise ConfigError(
                f"agentgym data_indices: got {given!r}, allowed: first-last, {_MOST_INDICES:,} at most"
            )
        yield from range(first, last + 1)
    elif isinstance(given, str) and given:
        yield from (data_index(where, item) for where, item in read_items(given, name))
    else:
        raise ConfigError(
            f"agentgym data_indices: got {given!r}, allowed: a number, a range such as 0-373, a data file, a "
            "hub id, or a list of such"
        )


def _is_timeout(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= _LONGEST_TIMEOUT


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
