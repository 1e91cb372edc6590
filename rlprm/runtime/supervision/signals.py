"""SIGTERM and SIGINT: noted while a run holds what is not on disk yet, obeyed at once otherwise."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rlprm.errors import RunInterruptedError

__all__ = ["Signals", "listening"]

log = logging.getLogger(__name__)
_CAUGHT = (signal.SIGTERM, signal.SIGINT)
_APART = 5.0
"""Seconds; launchers pass on a signal that the terminal has sent already, which is no second request."""


class Signals:
    """The first signal that asked this process to end, and whether the process may obey it at once."""

    def __init__(self) -> None:
        self._received, self._since = 0, 0.0
        self._deferred = False

    def received(self) -> int:
        """Return the number of the signal; 0 if there was none."""
        return self._received

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Only note signals within a block, which must ask :meth:`received` where it can end."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def interruption(self, number: int, kept: str) -> RunInterruptedError:
        """Return the error that ends the run.

        Args:
            number: of the signal.
            kept: what is on disk, as a clause.
        """
        name = signal.Signals(number).name
        return RunInterruptedError(
            f"{name}: {kept}; run the same command again to go on", exit_status=128 + number
        )

    def handle(self, number: int, _: FrameType | None) -> None:
        """Note a signal, or end the run.

        Raises:
            RunInterruptedError: outside :meth:`deferred`, and for SIGINT a second time.
        """
        now = time.monotonic()
        is_first = not self._received
        if is_first:
            self._received, self._since = number, now
        if not self._deferred:
            raise self.interruption(number, "the run has ended")
        if is_first:
            log.warning(
                "%s: the run ends where it can be resumed from; a second Ctrl-C ends it at once",
                signal.Signals(number).name,
            )
        elif number == signal.SIGINT and now - self._since > _APART:
            raise self.interruption(number, "the run has ended at once, and goes on from the last checkpoint")


@contextmanager
def listening() -> Iterator[Signals]:
    """Receive SIGTERM and SIGINT within a block; the handlers from before are put back.

    Only the main thread of a program can receive signals. In another one nothing changes.
    """
    signals = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    before = {number: signal.signal(number, signals.handle) for number in _CAUGHT}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
