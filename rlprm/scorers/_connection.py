"""Requests to a PRM server (``rlprm serve-prm``): one client, careful repeats, errors of one line."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import time
import weakref
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rlprm.errors import ConfigError, DataError, ServiceError
from rlprm.runtime.addresses import is_loopback

if TYPE_CHECKING:
    import httpx

__all__ = ["Server", "api_key_of", "entry", "shown"]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0  # seconds between attempts; each pause is twice the one before
_IDLE_LIMIT = 2.0  # seconds after which an open connection is not used again; servers close idle ones
_LONGEST_QUOTE = 300  # characters of an answer that a message repeats


def api_key_of(variable: str) -> str | None:
    """Return the key that an environment variable holds; None if no variable is named.

    Raises:
        ConfigError: if the variable is empty, or its value cannot stand in a header. The message repeats
            neither: a key may have been given in place of a name.
    """
    if not variable:
        return None
    key = os.environ.get(variable, "") if variable.isidentifier() else ""
    if not key or not key.isascii() or not key.isprintable() or key != key.strip():
        raise ConfigError(
            "api_key_env: the environment variable that it names holds no key, allowed: printable ASCII "
            "without blanks around it"
        )
    return key


class Server:
    """A PRM server and the connections to it. Any number of threads may use it at once.

    Args:
        url, timeout, api_key_env, attempts: see :func:`rlprm.scorers.http.build`.

    Raises:
        ConfigError: for a setting out of range.
    """

    def __init__(self, url: str, timeout: float, api_key_env: str, attempts: int) -> None:
        self.url = _checked(url)
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < math.inf:
            raise ConfigError(f"timeout: got {timeout!r}, allowed: seconds above 0")
        if isinstance(attempts, bool) or not isinstance(attempts, int) or attempts < 1:
            raise ConfigError(f"attempts: got {attempts!r}, allowed: 1 or more")
        if importlib.util.find_spec("httpx") is None:
            raise ConfigError("the scorer http needs httpx: pip install httpx")
        self._timeout, self._attempts = timeout, attempts
        self._key = api_key_of(api_key_env)
        self._client: httpx.Client | None = None
        self._process = 0

    def info(self) -> dict[str, Any]:
        """Return what the server says of its PRM.

        Raises:
            ServiceError: if there is no PRM server.
        """
        found = self.ask("GET", "/info")
        names = ("revision", "template", "takes_messages", "limits", "manifest")
        limits = ("max_body", "max_trajectories", "max_tokens")
        if any(entry(found, name) is None for name in names) or any(
            not isinstance(entry(found["limits"], name), int) for name in limits
        ):
            raise ServiceError(f"{self.url} is no server of rlprm serve-prm: it answers something else")
        return dict(found)

    def ask(self, method: str, path: str, body: bytes | None = None, *, attempts: int | None = None) -> Any:
        """Send a request and return the JSON of the answer.

        A request is sent again if no connection could be made, if the connection broke, and after the
        statuses 429 and 5xx. To score twice does no harm.

        Raises:
            ConfigError: for a key that is refused.
            DataError: for a body that is refused.
            ServiceError: if there is no answer, or none that is JSON.
        """
        import httpx

        cause: Exception | None
        left, pause = attempts or self._attempts, _FIRST_PAUSE
        where = f"{method} {self.url}{path}"
        while True:
            left -= 1
            wait = pause
            try:
                answer = self._open().request(method, self.url + path, content=body)
            except httpx.TimeoutException as error:
                raise ServiceError(f"{where}: no answer within {self._timeout:g} s") from error
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                problem, cause = f"{type(error).__name__}: {shown(str(error))}", error
                if isinstance(error, httpx.InvalidURL):
                    left = 0
            else:
                if answer.status_code != 429 and answer.status_code < 500:
                    return _content(where, answer)
                problem, cause = f"HTTP {answer.status_code}: {_reason(answer)}", None
                after = answer.headers.get("retry-after", "")
                wait = max(pause, min(float(after), 60.0)) if after.isdecimal() else pause
            if left <= 0:
                raise ServiceError(f"{where}: {problem}") from cause
            time.sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _open(self) -> httpx.Client:
        """Return the client of this process: a forked one must not use its parent's connections."""
        import httpx

        if self._client is None or self._process != os.getpid():
            headers = {"Content-Type": "application/json"}
            if self._key is not None:
                headers["Authorization"] = f"Bearer {self._key}"
            self._client = httpx.Client(
                headers=headers,
                timeout=self._timeout,
                limits=httpx.Limits(max_connections=None, keepalive_expiry=_IDLE_LIMIT),
                trust_env=not is_loopback(urlsplit(self.url).hostname or ""),  # no proxy to one's own machine
            )
            self._process = os.getpid()
            weakref.finalize(self, self._client.close)
        return self._client


def _checked(url: object) -> str:
    """Return a URL without a slash at its end.

    Raises:
        ConfigError: for another form, and for one that holds a password: settings are recorded.
    """
    allowed = "allowed: http://host:port or https://host:port"
    if not isinstance(url, str) or not url.isprintable() or " " in url:
        raise ConfigError(f"url: got {url!r}, {allowed}")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ConfigError(f"url: got {url!r}, {allowed}") from error
    if parts.username is not None or parts.password is not None:
        raise ConfigError(f"url: got one with a user or password, {allowed}; keys belong to api_key_env")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ConfigError(f"url: got {url!r}, {allowed}")
    return url.rstrip("/")


def _content(where: str, answer: httpx.Response) -> Any:
    status = answer.status_code
    if status in (401, 403):
        raise ConfigError(
            f"{where}: HTTP {status}: the server refuses the key; name its variable with api_key_env"
        )
    if status in (413, 422):
        raise DataError(f"{where}: HTTP {status}: {_reason(answer)}")
    if status != 200:
        raise ServiceError(f"{where}: HTTP {status}: {_reason(answer)}")
    try:
        return json.loads(answer.content)
    except (ValueError, RecursionError) as error:
        raise ServiceError(f"{where}: the answer is no JSON: {shown(answer.text)}") from error


def _reason(answer: httpx.Response) -> str:
    try:
        said = entry(json.loads(answer.content), "error")
    except (ValueError, RecursionError):
        said = None
    return shown(said if isinstance(said, str) else answer.text)


def shown(text: str) -> str:
    """Return a server's text so that it is one line and does nothing to a terminal."""
    line = "".join(c if c.isprintable() else " " for c in text[:_LONGEST_QUOTE])
    return " ".join(line.split()) or "nothing"


def entry(found: Any, name: str) -> Any:
    """Return a value of a mapping; None if there is none, or no mapping."""
    return found.get(name) if isinstance(found, dict) else None
