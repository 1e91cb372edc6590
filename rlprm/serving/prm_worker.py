"""The thread that scores: what waits at the same time is read together.

Requests wait in one queue. The worker fills a batch with their trajectories, first come first served, up to
a budget of tokens; a long request is scored by parts, beside short ones. A request of a search is a batch of
its own, because the reader of a search keeps the keys and values of its last round.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import ExitStack
from traceback import extract_tb

from rlprm.errors import RlprmError
from rlprm.scorers.base import Scorer, searching
from rlprm.serving.prm_metrics import Metrics
from rlprm.types import StepScores, Trajectory

__all__ = ["Job", "StoppedError", "Worker", "where_raised"]

log = logging.getLogger(__name__)
_SEARCHES = 64
"""Searches that are kept at most, however few tokens they have."""


class StoppedError(RlprmError, RuntimeError):
    """The worker takes no requests any more."""


class Job:
    """The trajectories of one request.

    Args:
        trajectories: in the model's own tokens; none if the job is to end a search.
        search: name of the search they are candidates of; None for any others.

    Attributes:
        result: the scores, in order. Cancelling it takes what is left of the job out of the queue.
    """

    def __init__(self, trajectories: Sequence[Trajectory], search: str | None = None) -> None:
        self.trajectories, self.search = trajectories, search
        self.result: Future[list[StepScores]] = Future()
        self._taken = 0
        self._scores: dict[int, StepScores] = {}

    def take(self, budget: int, *, at_least: int) -> list[int]:
        """Return the next trajectories within a budget of tokens, and a few of them whatever they cost."""
        first = self._taken
        for index, trajectory in enumerate(self.trajectories[first:], first):
            budget -= len(trajectory.token_ids)
            if budget < 0 and index - first >= at_least:
                break
            self._taken = index + 1
        return list(range(first, self._taken))

    @property
    def is_done(self) -> bool:
        """Whether nothing of the job is left to be taken."""
        return self._taken == len(self.trajectories) or self.result.done()

    def put(self, index: int, scores: StepScores) -> None:
        """Keep the scores of one trajectory; the last one ends the job."""
        self._scores[index] = scores
        if len(self._scores) == len(self.trajectories) and not self.result.done():
            self.finish([self._scores[i] for i in range(len(self.trajectories))])

    def finish(self, outcome: list[StepScores] | BaseException) -> None:
        """End the job; one that was cancelled stays so."""
        try:
            if isinstance(outcome, BaseException):
                self.result.set_exception(outcome)
            else:
                self.result.set_result(outcome)
        except InvalidStateError:  # cancelled at this moment
            pass


class Worker:
    """One thread with a model.

    Args:
        scorer: reads whole trajectories.
        open_search: makes a scorer with keys and values of its own, for one search.
        token_budget: tokens of a batch.
        search_tokens: padded tokens of the searches' last rounds that are kept, all together.
        metrics: counts batches.
    """

    def __init__(
        self,
        scorer: Scorer,
        open_search: Callable[[], Scorer],
        *,
        token_budget: int,
        search_tokens: int,
        metrics: Metrics,
    ) -> None:
        self._scorer, self._token_budget, self._metrics = scorer, token_budget, metrics
        self._searches = _Searches(open_search, search_tokens)
        self._queue: deque[Job] = deque()
        self._change = threading.Condition()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="prm-worker", daemon=True)

    def start(self) -> None:
        """Begin to score."""
        self._thread.start()

    def stop(self, seconds: float = 10.0) -> None:
        """End the thread after its batch; what waits is refused."""
        with self._change:
            self._is_stopping = True
            self._change.notify()
        self._thread.join(seconds)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def queue_length(self) -> int:
        """Jobs of which something waits to be scored."""
        with self._change:
            return sum(not job.is_done for job in self._queue)

    def submit(self, job: Job) -> None:
        """Put a job into the queue.

        Raises:
            StoppedError: if the worker has ended.
        """
        with self._change:
            if self._is_stopping or not self._thread.is_alive():
                raise StoppedError("the server is stopping")
            self._queue.append(job)
            self._change.notify()

    def end_search(self, name: str) -> None:
        """Free the keys and values of a search, as soon as what waits before has been scored."""
        with self._change:
            self._queue.append(Job((), name))
            self._change.notify()

    def _run(self) -> None:
        try:
            while (work := self._next()) is not None:
                self._score(work, work[0][0].search)
                del work  # nothing of it is held while the thread waits
        finally:
            with self._change:
                self._is_stopping = True
                left, self._queue = self._queue, deque()
            for job in left:
                job.finish(StoppedError("the server is stopping"))
            self._searches.clear()

    def _next(self) -> list[tuple[Job, int]] | None:
        """Wait for work, and take a batch of it; None at the end."""
        with self._change:
            while True:
                while self._queue and self._queue[0].is_done:
                    done = self._queue.popleft()
                    if done.search is not None and not done.trajectories:
                        self._searches.end(done.search)
                if self._is_stopping:
                    return None
                if self._queue:
                    return self._take()
                self._change.wait()

    def _take(self) -> list[tuple[Job, int]]:
        head = self._queue[0]
        if head.search is not None:
            return [(head, i) for i in head.take(0, at_least=len(head.trajectories))]
        work: list[tuple[Job, int]] = []
        budget = self._token_budget
        for job in self._queue:
            if job.search is not None or job.is_done:
                continue
            taken = job.take(budget, at_least=0 if work else 1)
            work += [(job, i) for i in taken]
            budget -= sum(len(job.trajectories[i].token_ids) for i in taken)
            if not job.is_done:  # the next one waits for its turn
                break
        return work

    def _score(self, work: Sequence[tuple[Job, int]], search: str | None) -> None:
        trajectories, started = [job.trajectories[i] for job, i in work], time.monotonic()
        try:
            scores = self._searches.score(search, trajectories) if search else None
            scores = self._scorer.score(trajectories) if scores is None else scores
        except Exception as error:  # of many kinds: the model's own, memory, a scorer's
            self._score_alone(work, search, error)
            return
        tokens = sum(score.tokens for score in scores)
        self._metrics.add_batch(len(work), tokens, time.monotonic() - started)
        for (job, i), score in zip(work, scores, strict=True):
            job.put(i, score)

    def _score_alone(self, work: Sequence[tuple[Job, int]], search: str | None, error: Exception) -> None:
        """Score again what failed together, so that one trajectory does no harm to the others."""
        if search is not None:
            self._searches.end(search)
        elif len(work) == 1:
            log.error("a trajectory was not scored: %s", where_raised(error))
            work[0][0].finish(error)
            return
        for job, i in work:
            if not job.result.done():
                self._score([(job, i)], None)


class _Searches:
    """Scorers of the searches that are going on, the latest used last."""

    def __init__(self, make: Callable[[], Scorer], limit: int) -> None:
        self._make, self._limit = make, limit
        self._open: OrderedDict[str, tuple[Scorer, ExitStack, int]] = OrderedDict()

    def score(self, name: str, trajectories: Sequence[Trajectory]) -> list[StepScores] | None:
        """Score a round of a search by what is new in it; None for a round above the limit."""
        tokens = len(trajectories) * max(len(t.token_ids) for t in trajectories)
        scorer, stack, _ = self._open.pop(name, None) or (None, ExitStack(), 0)
        if tokens > self._limit:
            stack.close()
            return None
        if scorer is None:
            scorer = self._make()
            stack.enter_context(searching(scorer))
        self._open[name] = scorer, stack, tokens
        while sum(held for *_, held in self._open.values()) > self._limit or len(self._open) > _SEARCHES:
            self.end(next(iter(self._open)))
        return scorer.score(trajectories)

    def end(self, name: str) -> None:
        """Free what a search keeps."""
        if name in self._open:
            self._open.pop(name)[1].close()

    def clear(self) -> None:
        """Free what all searches keep."""
        for name in list(self._open):
            self.end(name)


def where_raised(error: BaseException) -> str:
    """Return class and place of an error, without its message: a message may hold what a client sent."""
    frames = extract_tb(error.__traceback__)
    place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"
