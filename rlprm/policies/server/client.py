"""Requests to one or several servers, with a time limit, retries, and another server when one is gone.

A server that cannot be reached is asked for its health until it is back. Meanwhile its work goes to the
others. If none can be reached for :attr:`Patience.without_server` seconds, the stage ends and can be resumed.

A server that was restarted has the weights that it began with. Whoever notices other weights than expected
calls :meth:`Servers.leave_out`, and the server gets no work until it has been given the right ones.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import resource
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx

from rlprm.errors import ConfigError, ServersGoneError
from rlprm.policies.server.loop import LoopThread

__all__ = [
    "VLLM",
    "BadAnswerError",
    "Kind",
    "Patience",
    "RequestFailedError",
    "Server",
    "Servers",
    "UnreachableError",
    "printable",
]

log = logging.getLogger(__name__)
_T = TypeVar("_T")
_IDLE = 4.0
"""Seconds after which an idle connection is closed; vLLM closes them after 5."""
_SLACK = 8
"""Requests that a server may have more in flight than another before a new episode goes to the other."""
_LONGEST_PAUSE = 30.0


@dataclass(frozen=True)
class Patience:
    """How long and how often something is tried."""

    timeout: float = 600.0
    """Seconds for one answer."""
    attempts: int = 5
    """How often one request may fail before it is given up."""
    without_server: float = 300.0
    """Seconds without any server after which the stage ends."""
    pause: float = 0.5
    """Seconds before the first retry; doubled for each further one."""

    def before(self, retry: int) -> float:
        """Return the seconds to wait before a retry, counted from 0."""
        return float(min(self.pause * 2 ** min(retry, 30), _LONGEST_PAUSE))


@dataclass(frozen=True)
class Kind:
    """What differs between servers of one's own and an endpoint of somebody else's."""

    setting: str
    """That names the addresses."""
    key_variable: str
    """Environment variable that the key was read from."""
    health: str
    """Path that is asked while a server cannot be reached."""
    is_up_below: int
    """Lowest status of the answer to that request at which the server is not up yet."""
    name: str = ""
    """What messages call a server; its address if empty."""
    uses_proxies: bool = False
    """Whether the environment's proxies and certificates are used (HTTPS_PROXY, SSL_CERT_FILE)."""


VLLM = Kind("server", "VLLM_API_KEY", "/health", 201)


class BadAnswerError(Exception):
    """An answer cannot be used; the request is sent again, as often as any other that fails."""


class RequestFailedError(Exception):
    """A request was given up. The cause concerns this request alone, so that others may go on."""

    def __init__(self, cause: str, *, status: int | None = None, server: Server | None = None) -> None:
        super().__init__(cause)
        self.status = status
        """Of the answer, if the request was refused."""
        self.server = server
        """That refused the request."""


class UnreachableError(Exception):
    """No connection, or one that broke."""

    def __init__(self, cause: str, *, was_sent: bool = False) -> None:
        super().__init__(cause)
        self.was_sent = was_sent


class _BusyError(Exception):
    """The server asks to be left alone for a while."""

    def __init__(self, cause: str, seconds: float) -> None:
        super().__init__(cause)
        self.seconds = seconds


@dataclass(eq=False)
class Server:
    """A server and what is known of it."""

    url: str
    name: str = ""
    """What messages call the server; its address if not given."""
    in_flight: int = 0
    down_since: float | None = None
    """Time from which on the server could not be reached; None if it is up."""
    returns: int = 0
    """How often the server came back after it could not be reached."""
    has_weights: bool = True
    """False if the server was seen to have other weights than those to act with."""
    prober: asyncio.Task[None] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Give a server without a name that of its address."""
        self.name = self.name or self.url

    @property
    def is_up(self) -> bool:
        """Whether the server could be reached last time."""
        return self.down_since is None

    @property
    def is_usable(self) -> bool:
        """Whether the server may be asked to act."""
        return self.is_up and self.has_weights


class Servers:
    """The servers of one policy.

    Args:
        urls: one or several, such as ``http://127.0.0.1:8000``.
        key: sent as a bearer token if given.
        patience: time limits and number of attempts.
        kind: of the servers.

    Raises:
        ConfigError: for a text that is no http address.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        key: str | None = None,
        patience: Patience | None = None,
        kind: Kind = VLLM,
    ) -> None:
        for url in urls:
            if not url.startswith(("http://", "https://")):
                raise ConfigError(
                    f"{kind.setting}: got {url!r}, allowed: addresses such as http://127.0.0.1:8000"
                )
        self.all = [Server(url.rstrip("/"), kind.name) for url in urls]
        self.patience, self.kind = patience or Patience(), kind
        self._loop = LoopThread()
        self._key = key
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._client: httpx.AsyncClient | None = None
        self._last_answer = time.monotonic()

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Wait for a coroutine that runs in the loop of the connections."""
        return self._loop.run(coroutine)

    def submit(self, coroutine: Coroutine[Any, Any, _T]) -> Future[_T]:
        """Start a coroutine in the loop of the connections."""
        return self._loop.submit(coroutine)

    def run_all(self, coroutines: Iterable[Coroutine[Any, Any, _T]]) -> list[_T]:
        """Wait for several coroutines, which run at one time; the first error of one ends the others."""

        async def together() -> list[_T]:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(coroutine) for coroutine in coroutines]
            return [task.result() for task in tasks]

        try:
            return self.run(together())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    def quote(self, text: str, limit: int = 200) -> str:
        """Return what a server said as :func:`printable` does, without the key."""
        return printable(text.replace(self._key, "***") if self._key else text, limit)

    def choose(self, preferred: int = 0) -> Server:
        """Return the server for a new episode: the preferred one unless it has much more to do than another.

        Args:
            preferred: number of the server that has likely read the prompt already; any whole number.
        """
        up = [server for server in self.all if server.is_usable] or self.all
        wanted = up[preferred % len(up)]
        idlest = min(up, key=lambda server: server.in_flight)
        return idlest if wanted.in_flight > idlest.in_flight + _SLACK else wanted

    def leave_out(self, server: Server, cause: str) -> bool:
        """Give a server no more work, because of the weights that it has.

        Returns:
            Whether there are other servers. If there are none, nothing is changed.
        """
        if not any(other.has_weights for other in self.all if other is not server):
            return False
        if server.has_weights:
            server.has_weights = False
            log.warning("%s is left out until it has the weights of this run: %s", server.name, cause)
        return True

    async def ask(
        self,
        path: str,
        body: Any,
        read: Callable[[Any], _T],
        *,
        server: Server,
        elsewhere: bool = True,
        waits: bool = True,
        as_text: bool = False,
    ) -> tuple[_T, Server]:
        """Post a request until there is an answer that can be used.

        Args:
            path: of the endpoint.
            body: sent as JSON.
            read: turns the answer into what is returned, or raises :class:`BadAnswerError`.
            server: is asked first.
            elsewhere: ask another one if this one cannot be used.
            waits: wait for a server that cannot be reached even if others can.
            as_text: the answer is no JSON.

        Returns:
            What was read, and the server that answered.

        Raises:
            ConfigError: if the key is refused.
            RequestFailedError: if the request is refused, or failed too often.
            ServersGoneError: if no server could be reached, or all were busy, for too long.
            UnreachableError: if this server cannot be reached, others can, and nobody waits.
        """
        failures, busy_since = 0, None
        while True:
            server = await self._reachable(server, elsewhere, waits)
            try:
                found = read(await self._once(server, "POST", path, body, as_text))
                self._last_answer = time.monotonic()
                return found, server
            except UnreachableError as error:
                cause = str(error)
                self._lose(server, cause)
                failures += error.was_sent
                pause = 0.0
            except _BusyError as error:
                cause, pause = str(error), error.seconds
                busy_since = busy_since or time.monotonic()
                if time.monotonic() - busy_since > self.patience.without_server:
                    self._refuse_to_go_on(busy_since, cause)
                    raise RequestFailedError(f"{server.name} is busy: {cause}") from None
            except BadAnswerError as error:
                cause, pause = str(error), self.patience.before(failures)
                failures += 1
            if failures >= self.patience.attempts:
                raise RequestFailedError(f"{failures} attempts failed, the last one with: {cause}")
            await asyncio.sleep(pause)

    def _refuse_to_go_on(self, since: float, cause: str) -> None:
        """End the stage if no request at all was answered since then."""
        if self._last_answer < since:
            raise ServersGoneError(
                f"no request was answered for {time.monotonic() - since:.0f} seconds ({cause}); run the same "
                "command again later"
            )

    async def get(self, server: Server, path: str, *, waits: bool = True) -> Any:
        """Return what a server answers, or None if the server has no such endpoint; see :meth:`ask`.

        Raises:
            ConfigError: if the key is refused.
            RequestFailedError: if the answer cannot be used.
            ServersGoneError: if the server could not be reached for too long.
            UnreachableError: if this server cannot be reached, others can, and nobody waits.
        """
        cause = ""
        for attempt in range(self.patience.attempts):
            await self._reachable(server, elsewhere=False, waits=waits)
            try:
                return await self._once(server, "GET", path)
            except UnreachableError as error:
                cause = str(error)
                self._lose(server, cause)
            except (_BusyError, BadAnswerError) as error:
                await asyncio.sleep(self.patience.before(attempt))
                cause = str(error)
            except RequestFailedError:
                return None
        raise RequestFailedError(f"{server.name}{path}: {cause}")

    async def _once(
        self, server: Server, method: str, path: str, body: Any = None, as_text: bool = False
    ) -> Any:
        """Send a request once; return the JSON of the answer, or its text."""
        if self._client is None:
            limits = httpx.Limits(
                max_connections=_open_files() // 2, max_keepalive_connections=None, keepalive_expiry=_IDLE
            )
            self._client = httpx.AsyncClient(
                limits=limits, headers=self._headers, trust_env=self.kind.uses_proxies
            )
        server.in_flight += 1
        try:
            answer = await asyncio.wait_for(
                self._client.request(method, server.url + path, json=body, timeout=self.patience.timeout),
                self.patience.timeout,
            )
        except httpx.ConnectError as error:
            cause = self.quote(str(error))
            raise UnreachableError(f"no connection to {server.name} ({cause})") from None
        except (TimeoutError, httpx.TimeoutException):
            raise BadAnswerError(
                f"no answer from {server.name} in {self.patience.timeout:g} seconds"
            ) from None
        except httpx.HTTPError as error:
            cause = self.quote(str(error)) or type(error).__name__
            raise UnreachableError(
                f"the connection to {server.name} broke ({cause})", was_sent=True
            ) from None
        finally:
            server.in_flight -= 1
        return self._content(server, answer, as_text)

    def _content(self, server: Server, answer: httpx.Response, as_text: bool) -> Any:
        status = answer.status_code
        said = f"{server.name} answered {status}: {self.quote(_message(answer))}"
        if status in (401, 403):
            variable = self.kind.key_variable
            raise ConfigError(f"{said}; the key is read from the environment variable {variable}")
        if status in (429, 503):
            asked = min(_retry_after(answer), self.patience.without_server)
            raise _BusyError(said, asked or self.patience.before(1))
        if status >= 500 or status == 408:
            raise BadAnswerError(said)
        if status >= 400:
            raise RequestFailedError(said, status=status, server=server)
        if as_text:
            return answer.text
        try:
            return answer.json() if answer.content.strip() else None
        except (ValueError, RecursionError):
            what = self.quote(answer.text)
            raise BadAnswerError(f"{server.name} answered what is no JSON: {what}") from None

    async def _reachable(self, server: Server, elsewhere: bool, waits: bool) -> Server:
        """Return a server that can be used, the given one if possible; wait for one if there is none."""
        while not (server.is_usable if elsewhere else server.is_up):
            if elsewhere and any(other.is_usable for other in self.all):
                return self.choose(self.all.index(server))
            if not waits and any(other.is_up for other in self.all):
                raise UnreachableError(f"{server.name} cannot be reached")
            needed = [other for other in self.all if other.has_weights] if elsewhere else [server]
            since = time.monotonic() - max(s.down_since or 0.0 for s in needed)
            if since > self.patience.without_server:
                raise ServersGoneError(
                    f"no answer from {', '.join(s.name for s in needed)} for {since:.0f} seconds; run the "
                    "same command again when a server is there"
                )
            await asyncio.sleep(min(self.patience.pause, 1.0))
        return server

    def _lose(self, server: Server, cause: str) -> None:
        """Note that a server cannot be reached, and ask for its health until it is back."""
        if not server.is_up:
            return
        server.down_since = time.monotonic()
        others = sum(other.is_up for other in self.all)
        log.warning(
            "%s; %s", cause, f"{others} of {len(self.all)} servers go on" if others else "waiting for it"
        )
        server.prober = asyncio.ensure_future(self._revive(server))

    async def _revive(self, server: Server) -> None:
        for retry in range(10**9):
            await asyncio.sleep(min(self.patience.before(retry), 5.0))
            # Over a new connection: an old one may outlive a server that takes no others.
            try:
                async with httpx.AsyncClient(
                    headers=self._headers, trust_env=self.kind.uses_proxies
                ) as client:
                    answer = await client.get(server.url + self.kind.health, timeout=self.patience.timeout)
            except (httpx.HTTPError, OSError):
                continue
            if answer.status_code >= self.kind.is_up_below:
                continue
            server.down_since = None
            server.returns += 1
            log.warning("%s is back", server.name)
            return


def _open_files() -> int:
    """Return how many files this process may open, after raising the limit as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 65_536 if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def printable(text: str, limit: int = 200) -> str:
    """Return what a server said as plain ASCII of one line: nothing of it may steer a terminal."""
    short = text if len(text) <= limit else text[:limit] + " ..."
    return ascii(short)[1:-1]


def _message(answer: httpx.Response) -> str:
    try:
        content = answer.json()
        found = content.get("error", content.get("detail", content)) if isinstance(content, dict) else content
        text = found.get("message", found) if isinstance(found, dict) else found
        return text if isinstance(text, str) else json.dumps(text)
    except (ValueError, RecursionError):
        return answer.text


def _retry_after(answer: httpx.Response) -> float:
    """Return the seconds that a server asks for; 0 if it asks for none. The header has seconds or a date."""
    asked = answer.headers.get("retry-after", "")
    try:
        seconds = float(asked)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(asked).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0
