"""Sessions on a server: opened where none is free, used again, and closed when the process ends.

A session serves one episode after another, by a reset. Servers leak what is not closed, some cannot close,
and some take seconds to open one; so there are never more sessions than episodes at one time. One whose last
request failed is closed and never used again, since its state is unknown.

A reset may fail because of the task, of the session, or because the server was started again and knows the
session no more. A new session is tried once; the others are kept: if they are lost, their resets fail, too.

Most servers count their sessions, from the start again when they are started again (``Dialect.counts``). A
number that is not above all earlier ones shows that: idle sessions are forgotten then. Whoever has a number
that is given out again is told: it would go on in another episode.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import math
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
    NoServerError,
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
_RESPITE = 0.5  # seconds in which episodes that began together fail together, where no server answers
_NO_ANSWER = (UnreachableError, BusyError, DroppedError, LateError)
"""Errors after which the state of the server is unknown; an answer that is an error is none of them."""


@dataclass(eq=False)
class _Entry:
    """A session as its pool sees it."""

    number: int
    life: int
    """How often the server was started again before it was opened, as far as was noticed."""
    sound: bool = False
    """Whether its last request succeeded; not while one is under way."""
    void: bool = False
    """Whether it is closed, or its number stands for another session by now."""


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
    """The sessions on one server. Any number of threads may use them at once.

    Args:
        server: where.
        dialect: how to talk to it.
        max_unanswered_starts: after how many episodes in a row that got no answer to give up.
    """

    def __init__(self, server: Server, dialect: Dialect, max_unanswered_starts: int) -> None:
        self._server, self._dialect, self._max_unanswered = server, dialect, max_unanswered_starts
        self._entries: dict[int, _Entry] = {}
        self._free: deque[_Entry] = deque()
        self._spoiled: deque[_Entry] = deque()
        self._unclosed: deque[_Entry] = deque()
        """Spoiled ones that could not be closed, left for the end: they may hang."""
        self._lock = threading.Lock()
        self._opening = 0
        self._can_close = True
        self._life, self._newest = 0, -1
        self._unanswered, self._unanswered_at = 0, -math.inf
        self._why_unanswered = ""

    def start(self, data_idx: int) -> tuple[Session, str]:
        """Begin an episode, in a free session or else in a new one; returns its first observation, too.

        Raises:
            ServerError: if the server fails to.
            NoServerError: if it answers nothing, and did not for the episodes before.
        """
        self._await_others()
        began = time.monotonic()
        try:
            return self._start(data_idx)
        except _NO_ANSWER as error:
            if self._count_unanswered(began, error):
                raise self._no_server() from error
            raise

    def close(self, patience: float, *, all_of_them: bool = False) -> None:
        """Close the sessions that are not in use, or all of them, as far as the server lets it."""
        deadline = time.monotonic() + patience
        with self._lock:
            idle = self._drain()
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

    def _start(self, data_idx: int) -> tuple[Session, str]:
        entry = self._take_free()
        if entry is not None:
            session = self._hold(entry)
            try:
                first = session.reset(data_idx)
            except _NO_ANSWER:
                raise
            except ServerError:
                del session  # spoiled from here on
            else:
                self._close_one_spoiled()
                return session, first
        session = self._hold(self._open())
        self._close_one_spoiled()
        return session, session.reset(data_idx)

    def _await_others(self) -> None:
        """Let an episode wait where the one before got no answer, and not begin if others got none either.

        Those that began beside it are about to fail, too; whoever follows it would wait as long as it did.
        """
        asked_at = time.monotonic()
        if self._unanswered_at <= self._server.answered_at:
            return
        time.sleep(_RESPITE)
        # After a while it is worth a new try, for whoever caught the error.
        if self._unanswered >= self._max_unanswered and asked_at - self._unanswered_at < _RESPITE:
            raise self._no_server()

    def _count_unanswered(self, began: float, error: ServerError) -> bool:
        """Count an episode that could not begin, and return whether it is time to give up."""
        with self._lock:
            answered_at = self._server.answered_at
            if answered_at >= began:  # by others: the server is slow, not gone
                return False
            self._unanswered = 1 if answered_at > self._unanswered_at else self._unanswered + 1
            self._unanswered_at, self._why_unanswered = time.monotonic(), str(error)
            return self._unanswered >= self._max_unanswered

    def _no_server(self) -> NoServerError:
        return NoServerError(
            f"no AgentGym server answers at {self._server.url}: {self._unanswered} episodes in a row could "
            f"not begin ({self._why_unanswered})"
        )

    def _open(self) -> _Entry:
        while True:
            with self._lock:
                self._opening += 1
                life, newest = self._life, self._newest
            try:
                number = self._dialect.create(self._server)
            except BaseException:
                with self._lock:
                    self._opening -= 1
                raise
            with self._lock:
                self._opening -= 1
                if self._dialect.counts and number <= newest and life == self._life:
                    self._begin_life()
                self._newest = max(self._newest, number)
                before = self._entries.pop(number, None)
                self._entries[number] = entry = _Entry(number, self._life)
                if before is None:
                    return entry
                # Whoever has it may have a request under way that would reach the new session: not used.
                before.void = True
                self._spoiled.append(entry)

    def _begin_life(self) -> None:
        """Forget the sessions of a server that was started again."""
        # Not closed: they ended with the server, and their numbers are others' sessions by now or soon.
        for entry in self._drain():
            self._drop(entry)
        self._life, self._newest = self._life + 1, -1

    def _hold(self, entry: _Entry) -> Session:
        session = Session(self._server, self._dialect, entry)
        # Called wherever the collector pleases: it must neither wait nor lock. At exit all are closed anyway.
        weakref.finalize(session, self._give_back, entry).atexit = False
        return session

    def _give_back(self, entry: _Entry) -> None:
        if not entry.void:
            (self._free if entry.sound else self._spoiled).append(entry)

    def _take_free(self) -> _Entry | None:
        with contextlib.suppress(IndexError):
            while True:
                entry = self._free.pop()
                if not self._is_lost(entry):
                    return entry
        return None

    def _close_one_spoiled(self) -> None:
        """Close a spoiled session; after an answer that would have shown a server that was started again."""
        with self._lock:
            # Not while one is opened: its number may show that the server was started again.
            if self._spoiled and not self._opening and self._can_close:
                entry = self._spoiled.pop()
                try:
                    self._close(entry)
                except ServerError:
                    self._unclosed.append(entry)

    def _close(self, entry: _Entry) -> None:
        """Close a session; it is forgotten then, unless the server cannot close or may not have done it."""
        if self._is_lost(entry):
            self._drop(entry)
            return
        hurried = server_at(self._server.url, min(_PATIENCE, self._server.timeout), 0)
        try:
            self._dialect.close(hurried, entry.number)
        except _NO_ANSWER:
            raise
        except ServerError as error:  # it has no such session, or no way to close one
            self._can_close = error.status not in _CANNOT_CLOSE
            if not self._can_close:
                raise
        self._drop(entry)

    def _is_lost(self, entry: _Entry) -> bool:
        return entry.void or entry.life != self._life

    def _drop(self, entry: _Entry) -> None:
        entry.void = True
        if self._entries.get(entry.number) is entry:
            del self._entries[entry.number]

    def _drain(self) -> list[_Entry]:
        return [*_drained(self._free), *_drained(self._spoiled), *_drained(self._unclosed)]


def _drained(queue: deque[_Entry]) -> list[_Entry]:
    """Take everything out of a queue that may grow meanwhile."""
    entries = []
    with contextlib.suppress(IndexError):
        while True:
            entries.append(queue.popleft())
    return entries


_POOLS: dict[int, list[Sessions]] = {}  # by process: what a fork inherits is its parent's to use and to close


@functools.cache
def _pool(
    url: str, timeout: float, retries: int, max_unanswered_starts: int, dialect: Dialect, process: int
) -> Sessions:
    pool = Sessions(server_at(url, timeout, retries), dialect, max_unanswered_starts)
    _POOLS.setdefault(process, []).append(pool)
    return pool


def sessions_at(
    url: str, timeout: float, retries: int, max_unanswered_starts: int, dialect: Dialect
) -> Sessions:
    """Return the sessions on a server; the same object every time.

    Raises:
        ConfigError: for a URL that is none.
    """
    return _pool(url, timeout, retries, max_unanswered_starts, dialect, os.getpid())


def close_sessions() -> None:
    """Close all sessions of this process that are not in use, for instance before servers are stopped."""
    for pool in _POOLS.get(os.getpid(), []):
        pool.close(_PATIENCE_AT_EXIT)


@atexit.register
def _close_all() -> None:
    deadline = time.monotonic() + _PATIENCE_AT_EXIT
    for pool in _POOLS.get(os.getpid(), []):
        pool.close(deadline - time.monotonic(), all_of_them=True)
