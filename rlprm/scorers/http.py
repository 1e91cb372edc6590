"""Scores from a PRM that another process serves (``rlprm serve-prm``, docs/serving.md).

    scorers: {agentprm: {kind: http, url: "http://127.0.0.1:8001"}}

The server is asked once, at the start, what PRM it has. Trajectories in the PRM's own tokens are sent as
token ids. Others are sent as messages, which the server renders with the PRM's chat template. The scores are
those of the PRM in this process, up to rounding. A search names itself to the server, which then reads what
is new in its candidates alone.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import json
import logging
import math
import os
import time
import uuid
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rlprm.errors import ConfigError, DataError, MismatchError, ServiceError
from rlprm.types import Message, StepScores, Trajectory

if TYPE_CHECKING:
    import httpx

    from rlprm.models.manifest import Manifest

__all__ = ["HttpScorer", "api_key_of", "build", "is_loopback", "revision"]

log = logging.getLogger(__name__)
_TOKENS_A_REQUEST = 65_536
"""Tokens of a request outside of searches, so that it is answered in time."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0  # seconds between attempts; each pause is twice the one before
_IDLE_LIMIT = 2.0  # seconds after which an open connection is not used again; servers close idle ones
_LONGEST_QUOTE = 300  # characters of an answer that a message repeats


def build(
    name: str, *, url: str, timeout: float = 120.0, api_key_env: str = "", attempts: int = 8
) -> HttpScorer:
    """Build the scorer; see :class:`rlprm.scorers.base.ScorerModule`.

    Args:
        name: shown in tables.
        url: of the server, such as ``http://127.0.0.1:8001``.
        timeout: seconds without an answer after which a request is given up.
        api_key_env: environment variable that holds the key; empty without one.
        attempts: how often a request is sent at most, if the server is busy or the connection breaks.

    Raises:
        ConfigError: for a setting out of range, or a key that the server refuses.
        ServiceError: if no PRM server answers.
    """
    return HttpScorer(name, _Server(url, timeout, api_key_env, attempts))


def revision(*, url: str, timeout: float = 120.0, api_key_env: str = "", attempts: int = 8) -> str:
    """Return the revision of the weights that the server has; see ``ScorerModule.revision``.

    Raises:
        ConfigError: see :func:`build`.
        ServiceError: if no PRM server answers.
    """
    return str(_Server(url, timeout, api_key_env, attempts).info()["revision"])


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


def is_loopback(host: str) -> bool:
    """Whether a host can be reached from its own machine alone, as far as its text says."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class HttpScorer:
    """Scores of a PRM behind a URL.

    Args:
        name: shown in tables.
        server: the connection to it. It is asked what PRM it has.

    Attributes:
        manifest: of the PRM.

    Raises:
        ServiceError: if no PRM server answers.
    """

    def __init__(self, name: str, server: _Server) -> None:
        self.name = name
        self._server = server
        self._info = server.info()
        self.manifest = _manifest_of(self._info, server.url)
        self._search: str | None = None
        self._has_warned = False

    @contextmanager
    def searching(self) -> Iterator[None]:
        """See :class:`rlprm.scorers.base.SearchingScorer`.

        A round that is more than one request is read from its first tokens.
        """
        name = self._search = uuid.uuid4().hex
        try:
            yield
        finally:
            self._search = None
            with suppress(ServiceError):  # the server forgets the oldest searches by itself
                self._server.ask("DELETE", f"/searches/{name}", attempts=1)

    def score(self, trajectories: Sequence[Trajectory]) -> list[StepScores]:
        """Score every step; see :class:`rlprm.scorers.base.Scorer`.

        Raises:
            MismatchError: for trajectories of another chat template that cannot be sent as messages, or if
                the server has another PRM than it had at the start.
            DataError: for a trajectory without tokens, or one that the server refuses.
            ServiceError: if the server does not answer.
        """
        rows = [self._row(trajectory) for trajectory in trajectories]
        found: list[StepScores] = []
        for first, stop in self._requests(trajectories, rows):
            search = "" if self._search is None else f', "search": "{self._search}"'
            body = f'{{"trajectories": [{", ".join(rows[first:stop])}]{search}}}'
            answer = self._server.ask("POST", "/score", body.encode())
            found += self._scores(answer, trajectories[first:stop])
        return found

    def _requests(self, trajectories: Sequence[Trajectory], rows: Sequence[str]) -> Iterator[tuple[int, int]]:
        """Yield first and last (exclusive) trajectory of each request that the server's limits allow."""
        limits = self._info["limits"]
        most_bytes = limits["max_body"] - 200
        first, size, tokens = 0, 0, 0
        for i, (trajectory, row) in enumerate(zip(trajectories, rows, strict=True)):
            if len(row) > most_bytes:
                raise DataError(
                    f"trajectory of task {trajectory.task.id} has {len(row)} bytes for {self.name}, whose "
                    f"server takes {most_bytes}"
                )
            size, tokens = size + len(row) + 2, tokens + len(trajectory.token_ids)
            is_long = tokens > _TOKENS_A_REQUEST and self._search is None
            if i > first and (size > most_bytes or is_long or i - first == limits["max_trajectories"]):
                yield first, i
                first, size, tokens = i, len(row) + 2, len(trajectory.token_ids)
        if rows:
            yield first, len(rows)

    def _row(self, trajectory: Trajectory) -> str:
        """Return a trajectory as the server takes it, in ASCII."""
        if not trajectory.token_ids:
            raise DataError(
                f"trajectory of task {trajectory.task.id} has no tokens to score: {trajectory.error}"
            )
        own = trajectory.template == self._info["template"]
        row = self._tokens(trajectory) if own else self._messages(trajectory)
        if self._search is not None:  # candidates of one task have a prompt in common
            row["task"] = uuid.uuid5(
                uuid.NAMESPACE_OID, f"{trajectory.task.environment} {trajectory.task.id}"
            ).hex
        return json.dumps(row)

    def _tokens(self, trajectory: Trajectory) -> dict[str, Any]:
        length, limit = len(trajectory.token_ids), self._info["limits"]["max_tokens"]
        if length > limit:
            raise DataError(
                f"trajectory of task {trajectory.task.id} has {length} tokens for {self.name}, which takes "
                f"{limit}; collect with a lower context_length or round_limit"
            )
        row: dict[str, Any] = {
            "token_ids": trajectory.token_ids,
            "steps": [{"start": step.start, "end": step.end} for step in trajectory.steps],
            "template": trajectory.template,
        }
        inside = sum(step.end + 1 - step.start for step in trajectory.steps)
        if trajectory.action_tokens != inside:  # some tokens were forced
            row["action_mask"] = trajectory.action_mask
        return row

    def _messages(self, trajectory: Trajectory) -> dict[str, Any]:
        task = trajectory.task
        if not self._info["takes_messages"]:
            raise MismatchError(
                f"trajectory of task {task.id} was rendered with template {trajectory.template}, {self.name} "
                f"was trained with {self._info['template']}, and its server has no chat template"
            )
        if any("tool_calls" in message for message in trajectory.messages) and (
            (task.environment, trajectory.end.value) != (self.manifest.environment, self.manifest.end)
        ):
            raise MismatchError(
                f"trajectory of task {task.id} calls tools of {task.environment} with another chat template "
                f"than {self.name}, whose server has those of {self.manifest.environment}"
            )
        if not self._has_warned:
            self._has_warned = True
            log.warning(
                "%s reads trajectories of template %s rendered again with its own, %s",
                self.name, trajectory.template, self._info["template"],
            )  # fmt: skip
        # With T steps, the last T messages of the agent are the actions. Nothing behind them is read.
        by_agent = [i for i, m in enumerate(trajectory.messages) if m["role"] == "assistant"]
        actions = by_agent[-len(trajectory.steps) :] if trajectory.steps else []
        if len(actions) < len(trajectory.steps):
            raise DataError(f"trajectory of task {task.id} has fewer messages of the agent than steps")
        messages: list[dict[str, Any]] = [
            _sent(m) for m in trajectory.messages[: actions[-1] + 1 if actions else None]
        ]
        for i, step in zip(actions, trajectory.steps, strict=True):
            if step.action != messages[i]["content"]:
                messages[i]["action"] = step.action
            if not trajectory.action_mask[step.end]:
                messages[i]["closed"] = False
            if trajectory.forced_end(step):
                messages[i]["thought_cut"] = True
        return {"messages": messages, "num_steps": len(trajectory.steps)}

    def _scores(self, answer: Any, trajectories: Sequence[Trajectory]) -> list[StepScores]:
        """Read an answer; what cannot be right is an error."""
        for name in ("revision", "template"):
            if _entry(answer, name) != self._info[name]:
                raise MismatchError(
                    f"the server of {self.name} has another PRM than at the start ({name} "
                    f"{_shown(str(_entry(answer, name)))} now, {self._info[name]} then)"
                )
        rows = _entry(answer, "scores")
        if not isinstance(rows, list) or len(rows) != len(trajectories):
            raise ServiceError(
                f"{self._server.url}: the answer has no scores of {len(trajectories)} trajectories"
            )
        return [
            self._step_scores(row, trajectory) for row, trajectory in zip(rows, trajectories, strict=True)
        ]

    def _step_scores(self, row: Any, trajectory: Trajectory) -> StepScores:
        try:
            found = StepScores(
                float(row["initial"]), tuple(map(float, row["values"])), int(row["tokens"]),
                tuple(map(float, row["states"])),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise ServiceError(f"{self._server.url}: the answer has scores of another form") from error
        steps = len(trajectory.steps)
        numbers = (found.initial, *found.values, *found.states)
        if (
            len(found.values) != steps
            or len(found.states) not in (0, steps)
            or not all(map(math.isfinite, numbers))
        ):
            raise ServiceError(
                f"{self._server.url}: the answer has no finite score of each of the {steps} steps of task "
                f"{trajectory.task.id}"
            )
        return found


class _Server:
    """A PRM server and the connections to it. Any number of threads may use it at once.

    Args:
        url, timeout, api_key_env, attempts: see :func:`build`.

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
        if any(_entry(found, name) is None for name in names) or any(
            not isinstance(_entry(found["limits"], name), int) for name in limits
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
                problem, cause = f"{type(error).__name__}: {_shown(str(error))}", error
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


def _manifest_of(info: dict[str, Any], url: str) -> Manifest:
    from rlprm.models.manifest import Manifest  # after the settings are checked: it needs the hub's library

    try:
        return Manifest(**info["manifest"])
    except TypeError as error:
        raise ServiceError(f"{url} has a PRM of another version of rlprm: {error}") from error


def _sent(message: Message) -> dict[str, Any]:
    """Return a message with what the server reads of it."""
    names = ("role", "content", "thought", "tool_calls")
    return {name: message[name] for name in names if name in message}  # type: ignore[literal-required]


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
        raise ServiceError(f"{where}: the answer is no JSON: {_shown(answer.text)}") from error


def _reason(answer: httpx.Response) -> str:
    try:
        said = _entry(json.loads(answer.content), "error")
    except (ValueError, RecursionError):
        said = None
    return _shown(said if isinstance(said, str) else answer.text)


def _shown(text: str) -> str:
    """Return a server's text so that it is one line and does nothing to a terminal."""
    line = "".join(c if c.isprintable() else " " for c in text[:_LONGEST_QUOTE])
    return " ".join(line.split()) or "nothing"


def _entry(found: Any, name: str) -> Any:
    return found.get(name) if isinstance(found, dict) else None
