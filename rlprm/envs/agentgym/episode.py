"""One episode on a server."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rlprm.envs.agentgym.connection import ServerError
from rlprm.envs.agentgym.dialects import Dialect, Reply
from rlprm.envs.agentgym.sessions import Session, Sessions
from rlprm.types import Outcome, StopReason, Turn

__all__ = ["ServedEpisode"]


class ServedEpisode:
    """An episode that a server plays.

    A copy asks nothing of the server until it acts. Then the first copy to act goes on in the session they
    share; each other one replays the actions so far in a session of its own, and checks that the server
    answers as it did.

    Every method but ``outcome``, ``fork`` and ``close`` raises ``ServerError`` where the server fails.
    """

    def __init__(self, sessions: Callable[[], Sessions], dialect: Dialect, data_idx: int) -> None:
        """Prepare an episode; ``reset`` begins it.

        Args:
            sessions: Gives those of the present process.
            dialect: Of the server.
            data_idx: The task.
        """
        self._sessions, self._dialect, self._data_idx = sessions, dialect, data_idx
        self._session: Session | None = None
        self._first = ""
        self._history: tuple[tuple[str, Reply], ...] = ()
        self._score = 0.0
        self._stopped = False

    def reset(self) -> str:
        """Start the episode and return the first observation."""
        self._session, self._first = self._sessions().start(self._data_idx)
        return self._first

    def step(self, action: str) -> Turn:
        """Carry out one action, or a message that holds one; what the client refuses is not sent.

        Raises:
            RuntimeError: after the end of the episode.
        """
        if self._stopped:
            raise RuntimeError("this episode is over")
        request = self._dialect.read(action)
        if request.refusal is not None:
            return Turn(request.refusal, valid=False)
        if self._session is None or not self._session.claim(len(self._history)):
            self._session = self._replay()
        reply = self._session.step(request.action)
        self._history = (*self._history, (request.action, reply))
        self._score = reply.score
        valid = bool(request.action) and not reply.observation.startswith(self._dialect.refusals)
        if not reply.done:
            return Turn(reply.observation, valid=valid)
        self._stopped = True
        self.close()
        return Turn(reply.observation, reward=self.outcome().score, stop=self._stop_reason(), valid=valid)

    def outcome(self) -> Outcome:
        """Judge the episode as it stands, by the server's latest score, cut off at 0 and 1."""
        score = min(max(self._score, 0.0), 1.0)
        return Outcome(score, self._dialect.succeeds(self._score), self._dialect.definition)

    def fork(self) -> Self:
        """Return an independent copy in the same state."""
        return copy.copy(self)

    def close(self) -> None:
        """Give the session back; done by itself at the end of the episode and when it is forgotten."""
        self._session = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _replay(self) -> Session:
        """Bring a session of one's own to the present state, and reserve the next action in it."""
        session, first = self._sessions().start(self._data_idx)
        self._compare("reset", first, self._first)
        for number, (action, before) in enumerate(self._history):
            session.claim(number)
            self._compare(f"action {number + 1}, {action!r},", session.step(action), before)
        session.claim(len(self._history))
        return session

    def _compare(self, what: str, now: object, before: object) -> None:
        if now != before:
            raise ServerError(
                f"the {self._dialect.name} server is not deterministic: {what} of data_idx {self._data_idx} "
                "is answered differently in a replay, which copies of an episode (beam search) need"
            )

    def _stop_reason(self) -> StopReason:
        if self._dialect.declared:
            return StopReason.DECLARED
        return StopReason.SUCCESS if self._dialect.succeeds(self._score) else StopReason.FAILURE
