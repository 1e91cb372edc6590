"""JSON over HTTP to one server: connections kept open, a limit for the whole of a request, careful repeats.

On the standard library, because two things have to be certain. What is late is given up: a limit per read, as
HTTP libraries have it, never ends with a server that sends a byte now and then. And a request that is not to
be carried out twice is repeated only where none of it was sent.
"""

from __future__ import annotations

import functools
import http.client
import io
import json
import math
import os
import selectors
import socket
import time
from collections import deque
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

from rlprm.errors import ConfigError, RlprmError

__all__ = [
    "BusyError",
    "DroppedError",
    "LateError",
    "NoServerError",
    "Repeat",
    "Server",
    "ServerError",
    "UnreachableError",
    "server_at",
]

_LONGEST_ANSWER = 16 * 2**20  # bytes
_LONGEST_QUOTE = 200  # characters of an answer that are repeated in a message
_IDLE_LIMIT = 2.0
"""Seconds after which an open connection is not used again: servers close idle ones, uvicorn after five."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0  # seconds between tries; each pause is twice the one before
_BUSY = frozenset({429, 502, 503, 504})
_REFUSED = frozenset({429, 503})
"""Those of a server that did not begin; behind a gateway's other ones it may have carried the request out."""


class ServerError(RuntimeError):
    """A server answered with an error, or with something that cannot be right.

    Attributes:
        status: the HTTP status where that was the error, else None.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class UnreachableError(ServerError):
    """No connection could be made; nothing was sent."""


class BusyError(ServerError):
    """The server, or a gateway before it, cannot answer at the moment (429, 502, 503, 504)."""


class DroppedError(ServerError):
    """The connection ended before the answer did; the request may have been carried out."""


class LateError(ServerError):
    """There was no answer within the time limit; the request may still be carried out."""


class NoServerError(RlprmError, ConnectionError):
    """No server answers, and has not for several episodes: there is no use in trying the others."""


class Repeat(Enum):
    """When a request that failed is sent again."""

    UNSENT = "unsent"
    """Where no connection could be made: nothing was sent."""
    REFUSED = "refused"
    """Also where the server said that it did not begin (429, 503)."""
    HARMLESS = "harmless"
    """Also where it may have been carried out (the connection broke, 502, 504): it does no harm twice."""


class Server:
    """A server and the connections to it. Any number of threads may use it at once.

    Args:
        url: ``http://host:port`` or ``https://``, with a path in front of all others if need be.
        timeout: seconds until a request is given up, its repeats included.
        retries: how often a request is repeated at most.

    Raises:
        ConfigError: for a URL that is none.

    Attributes:
        answered_at: when the server last answered, be it with an error; a value of ``time.monotonic()``.
    """

    def __init__(self, url: str, timeout: float, retries: int) -> None:
        self.url, self.timeout, self.retries = url.rstrip("/"), timeout, retries
        self.answered_at = -math.inf
        if not url.isprintable() or " " in url:  # urlsplit drops some, and requests stumble over the others
            raise ConfigError(f"server: got {url!r}, allowed: no white space or control characters")
        try:
            parts = urlsplit(self.url)
            port = parts.port
        except ValueError as error:
            raise ConfigError(f"server: got {url!r}, allowed: http://host:port ({error})") from error
        extra = parts.query or parts.fragment or parts.username or not parts.path.isascii()
        if parts.scheme not in _CONNECTIONS or not parts.hostname or extra:
            raise ConfigError(f"server: got {url!r}, allowed: http://host:port or https://host:port")
        self._open = functools.partial(_CONNECTIONS[parts.scheme], parts.hostname, port)
        self._path = parts.path
        self._idle: deque[tuple[_Connection, float]] = deque()
        self._process = os.getpid()

    def post(self, path: str, body: Any = None, *, repeat: Repeat) -> Any:
        """Send a JSON body (none where it is None) and return the JSON of the answer.

        Args:
            path: with its slash.
            body: what to send.
            repeat: when it is sent again, ``retries`` times at most and within the time limit.

        Raises:
            ServerError: saying what went wrong with which request.
        """
        return self._ask("POST", path, None if body is None else json.dumps(body).encode(), repeat)

    def get(self, path: str) -> Any:
        """Return the JSON of the answer; repeated as what is harmless.

        Raises:
            ServerError: saying what went wrong with which request.
        """
        return self._ask("GET", path, None, Repeat.HARMLESS)

    def _ask(self, method: str, path: str, body: bytes | None, repeat: Repeat) -> Any:
        deadline = time.monotonic() + self.timeout
        tries_left, pause = self.retries, _FIRST_PAUSE
        while True:
            try:
                return self._ask_once(method, path, body, deadline)
            except ServerError as error:
                if not _allows(repeat, error) or not tries_left or time.monotonic() + pause >= deadline:
                    raise
            time.sleep(pause)
            tries_left, pause = tries_left - 1, min(2 * pause, _LONGEST_PAUSE)

    def _ask_once(self, method: str, path: str, body: bytes | None, deadline: float) -> Any:
        where = f"{method} {self.url}{path}"
        connection = self._connect(where, deadline)
        try:
            status, content = connection.ask(method, self._path + path, body)
        except TimeoutError as error:
            connection.close()
            raise LateError(f"{where}: no answer within {self.timeout:g} s") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            connection.close()
            raise DroppedError(f"{where}: {_cause(error)}") from error
        except BaseException:
            connection.close()
            raise
        if status not in _BUSY:  # what a gateway answers says nothing of the server behind it
            self.answered_at = time.monotonic()
        if len(content) > _LONGEST_ANSWER:
            connection.close()
            raise ServerError(f"{where}: the answer has more than {_LONGEST_ANSWER:,} bytes")
        if connection.sock is not None:  # it is None where the server wants no more requests on it
            self._idle.append((connection, time.monotonic()))
        return _decode(where, status, content)

    def _connect(self, where: str, deadline: float) -> _Connection:
        """Take an idle connection that is still good, the latest used one first, or make one."""
        if self._process != os.getpid():  # forked: these are the parent's
            self._idle, self._process = deque(), os.getpid()
        while self._idle:
            try:
                connection, since = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            if time.monotonic() - since < _IDLE_LIMIT and connection.is_quiet():
                connection.deadline = deadline
                return connection
            connection.close()
        connection = self._open()
        connection.deadline = deadline
        try:
            connection.timeout = _seconds_until(deadline)
            connection.connect()
        except TimeoutError as error:
            connection.close()
            raise LateError(f"{where}: no connection within {self.timeout:g} s") from error
        except (OSError, ValueError) as error:
            connection.close()
            raise UnreachableError(f"{where}: {_cause(error)}") from error
        return connection


@functools.cache
def server_at(url: str, timeout: float, retries: int) -> Server:
    """Return the server of these settings; the same one every time.

    Raises:
        ConfigError: for a URL that is none.
    """
    return Server(url, timeout, retries)


class _Connection(http.client.HTTPConnection):
    """A connection whose requests have a deadline, a value of ``time.monotonic()``."""

    deadline = math.inf

    def ask(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        """Send a request and return status and content of the answer."""
        self.sock.settimeout(_seconds_until(self.deadline))
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        self.request(method, path, body, headers)
        with self.getresponse() as response:
            content = response.read(_LONGEST_ANSWER + 1)
            if response.length and len(content) <= _LONGEST_ANSWER:
                raise http.client.IncompleteRead(content, response.length)
            return response.status, content

    def response_class(self, sock: socket.socket, **settings: Any) -> http.client.HTTPResponse:  # type: ignore[override]
        """Build an answer that is read until the deadline."""
        return http.client.HTTPResponse(_Watched(sock, self.deadline), **settings)  # type: ignore[arg-type]

    def is_quiet(self) -> bool:
        """Whether nothing was received: an idle connection with something to read was closed."""
        if self.sock is None:
            return False
        with selectors.DefaultSelector() as selector:
            selector.register(self.sock, selectors.EVENT_READ)
            return not selector.select(0)


class _SecureConnection(http.client.HTTPSConnection, _Connection):
    """The same over TLS."""


_CONNECTIONS: dict[str, type[_Connection]] = {"http": _Connection, "https": _SecureConnection}


class _Watched:
    """What an answer wants of a socket: a file; this one's reads end at a deadline."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock, self._deadline = sock, deadline

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_WatchedFile(self._sock, self._deadline))


class _WatchedFile(io.RawIOBase):
    """Reads of a socket that together end at a deadline."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        super().__init__()
        self._sock, self._deadline = sock, deadline
        self._file = sock.makefile("rb", buffering=0)  # keeps the socket open for as long as it is read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(_seconds_until(self._deadline))
        return self._file.readinto(buffer)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _allows(repeat: Repeat, error: ServerError) -> bool:
    """Whether a request that failed so may be sent again."""
    if isinstance(error, UnreachableError):
        return True
    if isinstance(error, BusyError) and error.status in _REFUSED:
        return repeat is not Repeat.UNSENT
    return isinstance(error, BusyError | DroppedError) and repeat is Repeat.HARMLESS


def _decode(where: str, status: int, content: bytes) -> Any:
    quote = content[:_LONGEST_QUOTE].decode("utf-8", "replace")
    if status in _BUSY:
        raise BusyError(f"{where}: HTTP {status} {quote!r}", status)
    if status != http.client.OK:
        raise ServerError(f"{where}: HTTP {status} {quote!r}", status)
    try:
        return json.loads(content.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ServerError(f"{where}: the answer {quote!r} is not JSON ({error})") from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _seconds_until(deadline: float) -> float:
    """Return the seconds that are left; a timeout of 0 would mean not to wait at all."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _cause(error: BaseException) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
