"""Signs of life between the processes of a launch: one that is gone ends the run within minutes.

Processes wait for each other in collectives, often for hours, because rollouts of one may take as long. So
the process group has a timeout of days. Here a thread of each process writes a count to the launch's store
every few seconds, whatever the process computes, and reads the counts of the others. The run ends, with the
rank in one line, if

* a count stands still: the process is stopped, or gone without a launcher that would say so;
* every process has been waiting in a collective for as long: they wait for each other;
* the store no longer answers: the process that holds it is stopped, or its machine is gone.

Time is counted in rounds of the thread itself. So a launch that was stopped and continued as a whole goes on.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta

from torch import distributed
from torch.distributed.distributed_c10d import PrefixStore, Store, _get_default_store

__all__ = ["Beat", "Watch", "waiting", "watched_processes"]

_ROUNDS = 20
"""Rounds in the time limit."""
_DONE = "done"


class _Waiting:
    """The collective that this process waits in, and since when."""

    name = ""
    since = 0.0


@contextmanager
def waiting(name: str) -> Iterator[None]:
    """Say that this process waits for the others within a block."""
    outer = _Waiting.name, _Waiting.since
    _Waiting.name, _Waiting.since = name, time.monotonic()
    try:
        yield
    finally:
        _Waiting.name, _Waiting.since = outer


@dataclass(frozen=True)
class Beat:
    """What a process says of itself in a round."""

    count: int
    waits_in: str = ""
    """Name of a collective; empty while the process works."""
    seconds: float = 0.0
    """How long it has waited there."""


@dataclass
class Watch:
    """What one process has heard of the others; pure, but for its memory of the last rounds.

    Args:
        limit: seconds.
        interval: seconds between rounds.
    """

    limit: float
    interval: float
    _counts: dict[int, int] = field(default_factory=dict)
    _missed: dict[int, int] = field(default_factory=dict)

    def verdict(self, beats: Sequence[Beat | None]) -> str:
        """Return why the run must end; empty if all is well.

        Args:
            beats: the newest of each rank in order, this process's own included; None if it has ended well.
        """
        silent = []
        for rank, beat in enumerate(beats):
            is_new = beat is None or self._counts.get(rank) != beat.count
            self._missed[rank] = 0 if is_new else self._missed[rank] + 1
            self._counts[rank] = -1 if beat is None else beat.count
            if self._missed[rank] * self.interval >= self.limit:
                silent.append(rank)
        if silent:
            who = ("rank" if len(silent) == 1 else "ranks") + f" {', '.join(map(str, silent))}"
            return f"no sign of life of {who} for {self.limit:g} s (heartbeat_timeout): stopped, or gone"
        alive = {rank: beat for rank, beat in enumerate(beats) if beat is not None}
        if alive and all(beat.waits_in and beat.seconds >= self.limit for beat in alive.values()):
            places = "; ".join(f"rank {rank} in {beat.waits_in}" for rank, beat in alive.items())
            return f"all processes have waited for each other for {self.limit:g} s: {places}"
        return ""


@contextmanager
def watched_processes(limit: float) -> Iterator[None]:
    """End this process within the block if another one of the launch shows no sign of life.

    Args:
        limit: seconds; 0 watches nothing, nor does a launch of one process.
    """
    if not limit or not distributed.is_initialized() or distributed.get_world_size() == 1:
        yield
        return
    heart = _Heart(limit)
    heart.begin()
    yield
    heart.end()  # not after an error: the others must not take this process for one that has finished


class _Heart:
    """The threads of one process."""

    def __init__(self, limit: float) -> None:
        self.limit, self.interval = limit, min(10.0, limit / _ROUNDS)
        self.rank, self.count = distributed.get_rank(), distributed.get_world_size()
        # A connection of its own: the main thread may wait for a key over the other one.
        self.store: Store = PrefixStore("rlprm/heartbeat", _get_default_store().clone())  # type: ignore[attr-defined]
        self.store.set_timeout(timedelta(seconds=limit))
        self.rounds = 0
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=of, daemon=True) for of in (self._exchange, self._guard)]

    def begin(self) -> None:
        """Start the threads; they keep no program alive."""
        for thread in self.threads:
            thread.start()

    def end(self) -> None:
        """Tell the others that this process has ended well."""
        self.ended.set()
        self.threads[0].join(timeout=self.limit)

    def _exchange(self) -> None:
        watch = Watch(self.limit, self.interval)
        number = 0
        while not self.ended.wait(self.interval):
            number += 1
            name, since = _Waiting.name, _Waiting.since
            seconds = time.monotonic() - since if name else 0.0
            try:
                self.store.set(str(self.rank), f"{number}|{name}|{seconds}")
                beats = [self._beat_of(rank) for rank in range(self.count)]
            except RuntimeError:  # the store is gone; the guard gives it time to be a launch that ends
                return
            self.rounds += 1
            if found := watch.verdict(beats):
                _leave(found)
        with suppress(RuntimeError):  # all others have ended, and their store with them
            self.store.set(str(self.rank), _DONE)

    def _beat_of(self, rank: int) -> Beat | None:
        if not self.store.check([str(rank)]):
            return Beat(0)  # it has not begun
        said = self.store.get(str(rank)).decode()
        if said == _DONE:
            return None
        number, name, seconds = said.split("|")
        return Beat(int(number), name, float(seconds))

    def _guard(self) -> None:
        """End the process if an exchange does not come to its end."""
        seen, missed = -1, 0
        while not self.ended.wait(self.interval):
            seen, missed = self.rounds, missed + 1 if self.rounds == seen else 0
            if missed * self.interval >= 2 * self.limit:
                _leave(f"no answer of the launch's store (rank 0, or the launcher) for {2 * self.limit:g} s")


def _leave(message: str) -> None:
    """End the process; its main thread waits in a collective, and no exception reaches it there."""
    print(
        f"rlprm: TrainingError: {message}; run the same command again to go on", file=sys.stderr, flush=True
    )
    os._exit(1)
