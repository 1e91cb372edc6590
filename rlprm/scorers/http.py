"""Scores from a PRM that another process serves (``rlprm serve-prm``, docs/serving.md).

    scorers: {agentprm: {kind: http, url: "http://127.0.0.1:8001"}}

The server is asked once, at the start, what PRM it has. Trajectories in the PRM's own tokens are sent as
token ids. Others are sent as messages, which the server renders with the PRM's chat template. The scores are
those of the PRM in this process, up to rounding. A search names itself to the server, which then reads what
is new in its candidates alone.
"""

from __future__ import annotations

import json
import logging
import math
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from rlprm.errors import DataError, MismatchError, ServiceError
from rlprm.scorers._connection import Server, entry, shown
from rlprm.types import Message, StepScores, Trajectory

if TYPE_CHECKING:
    from rlprm.models.manifest import Manifest

__all__ = ["HttpScorer", "build", "revision"]

log = logging.getLogger(__name__)
_GROWTH = 4
"""By how much the candidates of a search may grow without beginning another request."""
_TOKENS_A_REQUEST = 65_536
"""Tokens of a request outside of searches, so that it is answered in time."""


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
    return HttpScorer(name, Server(url, timeout, api_key_env, attempts))


def revision(*, url: str, timeout: float = 120.0, api_key_env: str = "", attempts: int = 8) -> str:
    """Return the revision of the weights that the server has; see ``ScorerModule.revision``.

    Raises:
        ConfigError: see :func:`build`.
        ServiceError: if no PRM server answers.
    """
    return str(Server(url, timeout, api_key_env, attempts).info()["revision"])


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

    def __init__(self, name: str, server: Server) -> None:
        self.name = name
        self._server = server
        self._info = server.info()
        self.manifest = _manifest_of(self._info, server.url)
        self._search: _Search | None = None
        self._has_warned = False

    @contextmanager
    def searching(self) -> Iterator[None]:
        """See :class:`rlprm.scorers.base.SearchingScorer`."""
        limits = self._info["limits"]
        search = self._search = _Search(limits["max_trajectories"], limits["max_body"] // _GROWTH)
        try:
            yield
        finally:
            self._search = None
            with suppress(ServiceError):  # the server forgets the oldest searches by itself
                for name in search.names:
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
        found: dict[int, StepScores] = {}
        for search, indices in self._requests(trajectories, rows):
            named = "" if search is None else f', "search": "{search}"'
            body = f'{{"trajectories": [{", ".join(rows[i] for i in indices)}]{named}}}'
            answer = self._server.ask("POST", "/score", body.encode())
            found.update(zip(indices, self._scores(answer, [trajectories[i] for i in indices]), strict=True))
        return [found[i] for i in range(len(rows))]

    def _requests(
        self, trajectories: Sequence[Trajectory], rows: Sequence[str]
    ) -> Iterator[tuple[str | None, list[int]]]:
        """Yield the trajectories of each request that the server's limits allow, and the name of its search.

        A round of a search is split by tasks, in the same way each time, so that every request continues one
        of the round before.
        """
        if self._search is None:
            for indices in self._parts(trajectories, rows, range(len(rows)), _TOKENS_A_REQUEST):
                yield None, indices
            return
        tasks = [(t.task.environment, t.task.id) for t in trajectories]
        for name, indices in self._search.split(tasks, [len(row) for row in rows]).items():
            for part in self._parts(trajectories, rows, indices, math.inf):
                yield name, part

    def _parts(
        self, trajectories: Sequence[Trajectory], rows: Sequence[str], indices: Iterable[int], most: float
    ) -> Iterator[list[int]]:
        """Split trajectories so that no part is beyond the server's limits or has more tokens than most."""
        limits = self._info["limits"]
        most_bytes = limits["max_body"] - 200
        part, size, tokens = list[int](), 0, 0
        for i in indices:
            bytes_of, tokens_of = len(rows[i]) + 2, len(trajectories[i].token_ids)
            if bytes_of > most_bytes:
                raise DataError(
                    f"trajectory of task {trajectories[i].task.id} has {bytes_of} bytes for {self.name}, "
                    f"whose server takes {most_bytes}"
                )
            is_full = size + bytes_of > most_bytes or tokens + tokens_of > most
            if part and (is_full or len(part) == limits["max_trajectories"]):
                yield part
                part, size, tokens = [], 0, 0
            part.append(i)
            size, tokens = size + bytes_of, tokens + tokens_of
        if part:
            yield part

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
            if entry(answer, name) != self._info[name]:
                raise MismatchError(
                    f"the server of {self.name} has another PRM than at the start ({name} "
                    f"{shown(str(entry(answer, name)))} now, {self._info[name]} then)"
                )
        rows = entry(answer, "scores")
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


class _Search:
    """One search of a client, as one or several of the server's: each task belongs to one of these.

    Args:
        most: candidates of a round in one request.
        most_bytes: of the first round's candidates in one request.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self.names = [uuid.uuid4().hex]
        self._most, self._most_bytes = most, most_bytes
        self._name_of: dict[tuple[str, str], str] = {}
        self._count = self._bytes = 0

    def split(self, tasks: Sequence[tuple[str, str]], sizes: Sequence[int]) -> dict[str, list[int]]:
        """Return the candidates of a round by the names of the server's searches.

        Args:
            tasks: of the candidates.
            sizes: their bytes.
        """
        of_task: dict[tuple[str, str], list[int]] = {}
        for i, task in enumerate(tasks):
            of_task.setdefault(task, []).append(i)
        found: dict[str, list[int]] = {}
        for task, indices in of_task.items():
            if task not in self._name_of:
                self._add(task, len(indices), sum(sizes[i] for i in indices))
            found.setdefault(self._name_of[task], []).extend(indices)
        return found

    def _add(self, task: tuple[str, str], count: int, size: int) -> None:
        if self._count and (self._count + count > self._most or self._bytes + size > self._most_bytes):
            self.names.append(uuid.uuid4().hex)
            self._count = self._bytes = 0
        self._name_of[task] = self.names[-1]
        self._count, self._bytes = self._count + count, self._bytes + size


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
