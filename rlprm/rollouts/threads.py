"""Threads for environments that wait on a network or a process of their own.

Threads are daemons. The standard library waits at exit for every call that was begun, and an environment that
never answers would keep a program alive for ever.
"""

from __future__ import annotations

import functools
import os
import queue
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

from rlprm import envs
from rlprm.types import Task

__all__ = ["Threads", "concurrency", "shared_threads"]

_R = TypeVar("_R")


class Threads(Executor):
    """Runs calls in daemon threads, which are begun as they are needed.

    Args:
        width: most calls at one time.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._begun = self._unfinished = 0
        self._is_closed = False

    def submit(self, fn: Callable[..., _R], /, *args: Any, **kwargs: Any) -> Future[_R]:
        """Begin a call; see :class:`concurrent.futures.Executor`.

        Raises:
            RuntimeError: after :meth:`shutdown`.
        """
        future: Future[_R] = Future()
        with self._lock:
            if self._is_closed:
                raise RuntimeError("these threads have been shut down")
            self._unfinished += 1
            if self._begun < min(self._width, self._unfinished):
                self._begun += 1
                threading.Thread(target=self._work, name="environments", daemon=True).start()
            self._calls.put((future, functools.partial(fn, *args, **kwargs)))
        return future

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            future, work = call
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work())
                except BaseException as error:
                    future.set_exception(error)
            with self._lock:
                self._unfinished -= 1
            del call, future, work  # an idle thread keeps no environment alive

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls. Threads end after their calls, and nobody waits for them.

        Args:
            wait: without effect, since a call may never end.
            cancel_futures: drop the calls that have not been begun.
        """
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            kept = []
            while cancel_futures:
                try:
                    call = self._calls.get_nowait()
                except queue.Empty:
                    break
                if call is not None and not call[0].cancel():
                    kept.append(call)
            for call in kept:
                self._calls.put(call)
            for _ in range(self._begun):
                self._calls.put(None)


def concurrency(tasks: Iterable[Task]) -> int:
    """Return how many calls of the tasks' environments may run at one time: ``CONCURRENT``, or 1."""
    one_of_each = {task.environment: task for task in tasks}.values()
    return min((getattr(envs.of_task(task), "CONCURRENT", 1) for task in one_of_each), default=1)


@functools.cache
def shared_threads(width: int) -> Threads:
    """Return threads that live as long as the program."""
    return Threads(width)


os.register_at_fork(after_in_child=shared_threads.cache_clear)  # threads do not survive a fork
