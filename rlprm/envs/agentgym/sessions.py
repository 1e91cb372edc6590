"""Sessions on a server: opened where none is free, used again, and closed when the process ends.

A session serves one episode after another, by a reset. Servers leak what is not closed, some cannot close,
and some take seconds to open one; so there are never more sessions than episodes at one time. One whose last
request failed is never used again: nobody knows what state it is in.

Servers count their sessions, from the start again when they are started again. A number that is given out
while it is in use here shows that, and whoever used it is told: it would go on in another episode.
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
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

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

_T = TypeVar("_T")
_PATIENCE = 2.0  # seconds to wait for a session to be closed
_PATIENCE_AT_EXIT = 10.0  # seconds for all of them
_CANNOT_CLOSE = frozenset({404, 405})


@dataclass(eq=False)
class _Entry:
    """A session as its pool sees it."""

    number: int
    sound: bool = False
    """Whether its last request succeeded; not while one is under way."""
    void: bool = False
    """Whether its number stands for another session by now."""


class Session:
    """The episode that a session on a server is in. It is free again once nothing refers to this object."""

    def __init__(self, server: Server, dialect: Dialect, entry: _Entry) -> None:
        self.entry = entry
        self._server, self._dialect = server, dialect
        self._taken = 0
        self._lock, self._process = threading.Lock(), os.getpid()

    def reset(self, data_idx: int) -> str:
        """Begin the episode of a data index and return its first observation."""
        return self._ask(lambda: self._dialect.reset(self._server, self.entry.number, data_idx))

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
        return self._ask(lambda: self._dialect.step(self._server, self.entry.number, action))

    def _ask(self, request: Callable[[], _T]) -> _T:
        self.entry.sound = False
        self._require_ours()
        answer = request()
        self._require_ours()
        self.entry.sound = True
        return answer

    def _require_ours(self) -> None:
        if self.entry.void:
            raise ServerError(f"{self._server.url} was started again: session {self.entry.number} is lost")


class Sessions:
    """The sessions on one server. Any number of threads may use them at once."""

    def __init__(self, server: Server, dialect: Dialect) -> None:
        self._server, self._dialect = server, dialect
        self._entries: dict[int, _Entry] = {}
        self._free: deque[_Entry] = deque()
        self._spoiled: deque[_Entry] = deque()
        self._lock = threading.Lock()
        self._opening = 0
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
            except ServerError:  # it was started again: then it knows the others no more, either
                self._forget(session.entry)
        session = self._hold(self._open())
        return session, session.reset(data_idx)

    def close(self, patience: float, *, all_of_them: bool = False) -> None:
        """Close the sessions that are not in use, or all of them, as far as the server lets it."""
        deadline = time.monotonic() + patience
        with self._lock:
            idle = [*_drained(self._free), *_drained(self._spoiled)]
            for entry in list(self._entries.values()) if all_of_them else idle:
                if not self._can_close or time.monotonic() > deadline:
                    break
                try:
                    self._close(entry)
                except (UnreachableError, LateError):
                    break
                except ServerError:
                    continue
            for entry in idle:
                self._give_back(entry)  # what could not be closed can be used

    def _open(self) -> _Entry:
        while True:
            with self._lock:
                self._opening += 1
            try:
                number = self._dialect.create(self._server)
            finally:
                with self._lock:
                    self._opening -= 1
            with self._lock:
                before = self._entries.pop(number, None)
                if before is None:
                    self._entries[number] = entry = _Entry(number)
                    return entry
                # Whoever has it may have a request under way that would reach the new session: leave it.
                before.void = True

    def _hold(self, entry: _Entry) -> Session:
        session = Session(self._server, self._dialect, entry)
        # Called wherever the collector pleases: it must neither wait nor lock. At exit all are closed anyway.
        weakref.finalize(session, self._give_back, entry).atexit = False
        return session

    def _give_back(self, entry: _Entry) -> None:
        if not entry.void:
            (self._free if entry.sound else self._spoiled).append(entry)

    def _forget(self, lost: _Entry) -> None:
        with self._lock:
            for entry in (lost, *_drained(self._free), *_drained(self._spoiled)):
                if not entry.void:
                    entry.void = True
                    del self._entries[entry.number]

    def _close_one_spoiled(self) -> None:
        with self._lock:
            # Not while one is opened: on a server that was started again it could get the same number.
            if self._spoiled and not self._opening and self._can_close:
                with contextlib.suppress(ServerError):
                    self._close(self._spoiled.pop())

    def _close(self, entry: _Entry) -> None:
        """Close a session that is not forgotten; it is then, unless the server cannot close."""
        if entry.void:
            return
        hurried = server_at(self._server.url, min(_PATIENCE, self._server.timeout), 0)
        try:
            self._dialect.close(hurried, entry.number)
        except ServerError as error:
            self._can_close = error.status not in _CANNOT_CLOSE
            raise
        finally:
            if self._can_close:
                entry.void = True
                del self._entries[entry.number]


def _drained(queue: deque[_Entry]) -> list[_Entry]:
    """Take everything out of a queue that may grow meanwhile."""
    found = []
    with contextlib.suppress(IndexError):
        while True:
            found.append(queue.popleft())
    return found


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
