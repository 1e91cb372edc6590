"""Sessions on a server: opened where none is free, used again, and closed when the process ends.

A session serves one episode after another, by a reset. Servers leak what is not closed, some cannot close,
and some take seconds to open one; so there are never more sessions than episodes at one time. One whose last
request failed is never used again: nobody knows what state it is in.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import threading
import time
import weakref
from collections import deque
from dataclasses import dataclass

from rlprm.envs.agentgym.connection import (
    BusyError,
    DroppedError,
    LateError,
    Server,
    ServerError,
    UnreachableError,
    server_at,
)
from rlprm.envs.agentgym.dialects import Dialect, Reply

__all__ = ["Session", "Sessions", "close_sessions", "sessions_at"]

_PATIENCE = 2.0  # seconds to wait for a session to be closed
_PATIENCE_AT_EXIT = 10.0  # seconds for all of them
_CANNOT_CLOSE = frozenset({404, 405})


@dataclass
class _Entry:
    """A session as its pool sees it."""

    number: int
    sound: bool = False
    """Whether its last request succeeded; not while one is under way."""


class Session:
    """The episode that a session on a server is in. It is free again once nothing refers to this object."""

    def __init__(self, server: Server, dialect: Dialect, entry: _Entry) -> None:
        self._server, self._dialect, self._entry = server, dialect, entry
        self._taken = 0
        self._lock, self._process = threading.Lock(), os.getpid()

    def reset(self, data_idx: int) -> str:
        """Begin the episode of a data index and return its first observation."""
        self._entry.sound = False
        observation = self._dialect.reset(self._server, self._entry.number, data_idx)
        self._entry.sound = True
        return observation

    def claim(self, taken: int) -> bool:
        """Reserve the next action for the caller, if so many were taken before; the caller then takes it.

        Copies of an episode share a session until one of them goes on in it.
        """
        with self._lock:
            if self._taken != taken or self._process != os.getpid():
                return False
            self._taken += 1
            return True

    def step(self, action: str) -> Reply:
        """Carry out the action that was claimed."""
        self._entry.sound = False
        reply = self._dialect.step(self._server, self._entry.number, action)
        self._entry.sound = True
        return reply


class Sessions:
    """The sessions on one server. Any number of threads may use them at once."""

    def __init__(self, server: Server, dialect: Dialect) -> None:
        self._server, self._dialect = server, dialect
        self._free: deque[_Entry] = deque()
        self._spoiled: deque[_Entry] = deque()
        self._in_use: set[int] = set()
        self._can_close = True

    def start(self, data_idx: int) -> tuple[Session, str]:
        """Begin an episode, in a free session or else in a new one; returns its first observation, too.

        Raises:
            ServerError: if the server fails to.
        """
        self._close_one_spoiled()
        with contextlib.suppress(IndexError):
            session = self._hold(self._free.pop())
            try:
                return session, session.reset(data_idx)
            except (UnreachableError, BusyError, DroppedError, LateError):
                raise
            except ServerError:  # the server was started again, perhaps, and knows no such session
                pass
        session = self._hold(_Entry(self._dialect.create(self._server)))
        return session, session.reset(data_idx)

    def close(self, patience: float, *, all_of_them: bool = False) -> None:
        """Close the sessions that are not in use, or all of them, as far as the server lets it."""
        deadline = time.monotonic() + patience
        numbers = set(self._in_use) if all_of_them else set()
        while self._free or self._spoiled:
            with contextlib.suppress(IndexError):
                numbers.add((self._free or self._spoiled).pop().number)
        for number in numbers:
            if not self._can_close or time.monotonic() > deadline:
                return
            try:
                self._close(number)
            except (UnreachableError, LateError):
                return
            except ServerError:
                continue

    def _hold(self, entry: _Entry) -> Session:
        session = Session(self._server, self._dialect, entry)
        self._in_use.add(entry.number)
        # Called wherever the collector pleases: it must neither wait nor lock. At exit all are closed anyway.
        weakref.finalize(session, self._give_back, entry).atexit = False
        return session

    def _give_back(self, entry: _Entry) -> None:
        self._in_use.discard(entry.number)
        (self._free if entry.sound else self._spoiled).append(entry)

    def _close_one_spoiled(self) -> None:
        with contextlib.suppress(IndexError, ServerError):
            self._close(self._spoiled.pop().number)

    def _close(self, number: int) -> None:
        if self._can_close:
            hurried = server_at(self._server.url, min(_PATIENCE, self._server.timeout), 0)
            try:
                self._dialect.close(hurried, number)
            except ServerError as error:
                self._can_close = error.status not in _CANNOT_CLOSE
                raise


_POOLS: dict[int, list[Sessions]] = {}  # by process: what a fork inherits is its parent's to use and to close


@functools.cache
def _pool(url: str, timeout: float, retries: int, dialect: Dialect, process: int) -> Sessions:
    pool = Sessions(server_at(url, timeout, retries), dialect)
    _POOLS.setdefault(process, []).append(pool)
    return pool


def sessions_at(url: str, timeout: float, retries: int, dialect: Dialect) -> Sessions:
    """Return the sessions on a server; the same object every time.

    Raises:
        ConfigError: for a URL that is none.
    """
    return _pool(url, timeout, retries, dialect, os.getpid())


def close_sessions() -> None:
    """Close all sessions of this process that are not in use, for instance before servers are stopped."""
    for pool in _POOLS.get(os.getpid(), []):
        pool.close(_PATIENCE_AT_EXIT)


@atexit.register
def _close_all() -> None:
    deadline = time.monotonic() + _PATIENCE_AT_EXIT
    for pool in _POOLS.get(os.getpid(), []):
        pool.close(deadline - time.monotonic(), all_of_them=True)
