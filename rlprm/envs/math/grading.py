"""Comparing a formula with a number by math-verify, in a process of its own.

math-verify takes a second to import. Some formulas take it forever or fill the memory (``9^9^9^9``). Its
own time limit is a signal, which only the main thread of a process can receive. A worker
(``grading_worker.py``) therefore does the work. The first question starts the worker. A hostile formula
does not end it, and the end of this process does. Each process has a worker of its own, a forked process
too. Threads ask one after another.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import logging
import os
import select
import subprocess
import sys
import threading
import time
from pathlib import Path

from rlprm.errors import ConfigError

__all__ = ["equals", "stop_worker", "worker_pid"]

log = logging.getLogger(__name__)
_SCRIPT = Path(__file__).with_name("grading_worker.py")
_START_SECONDS = 120.0
_ANSWER_SECONDS = 10.0  # the worker's own limits are lower; this one is for a worker that was suspended
_TRIES = 2

_lock = threading.Lock()
_worker: subprocess.Popen[bytes] | None = None


@functools.lru_cache(maxsize=4096)
def equals(formula: str, number: str) -> bool:
    """Whether a formula equals a number. A formula that takes too long, or cannot be read, does not.

    Args:
        formula: LaTeX or plain text, of a few hundred characters at most.
        number: a decimal number.

    Raises:
        ConfigError: if math-verify cannot be started.
    """
    with _lock:
        for _ in range(_TRIES):
            if (verdict := _ask(formula, number)) is not None:
                return verdict
    log.warning("the process that compares answers ended twice at %r, which counts as wrong", formula)
    return False


def worker_pid() -> int | None:
    """Return the process id of this process's worker; None if none runs."""
    return _worker.pid if _worker is not None and _worker.poll() is None else None


def stop_worker() -> None:
    """End the worker; the next question starts another."""
    with _lock:
        _stop()


def _ask(formula: str, number: str) -> bool | None:
    """Return the worker's verdict; None if there was none, and the worker is gone."""
    worker = _running()
    try:
        assert worker.stdin is not None
        worker.stdin.write(json.dumps([formula, number]).encode() + b"\n")
        reply = _read_line(worker, _ANSWER_SECONDS)
    except OSError:
        reply = None
    except BaseException:  # such as Ctrl-C: the reply would be taken for that of the next question
        _stop()
        raise
    if reply is None:
        _stop()
        return None
    return reply == b"1"


def _running() -> subprocess.Popen[bytes]:
    """Return the worker, which is started if none runs.

    Raises:
        ConfigError: if it does not start.
    """
    global _worker
    if _worker is not None and _worker.poll() is None:
        return _worker
    _stop()
    # -P: the folder of the script is not on the import path. It has modules with names as common as records.
    _worker = subprocess.Popen(
        [sys.executable, "-P", str(_SCRIPT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
    )
    try:
        reply = _read_line(_worker, _START_SECONDS)
    except BaseException:
        _stop()
        raise
    if reply != b"ready":
        code = _worker.poll()
        _stop()
        reason = reply.decode(errors="replace") if reply else f"it ended with {code} or took too long"
        raise ConfigError(
            "math answers: got 'flexible', but math-verify cannot be started to compare answers "
            f"({reason}); install it (pip install math-verify), or choose 'strict'"
        )
    return _worker


def _stop() -> None:
    global _worker
    worker, _worker = _worker, None
    if worker is None:
        return
    worker.kill()
    worker.wait()
    _close_pipes(worker)


def _close_pipes(worker: subprocess.Popen[bytes]) -> None:
    for pipe in (worker.stdin, worker.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _read_line(worker: subprocess.Popen[bytes], seconds: float) -> bytes | None:
    """Return a line without its end; None if there is none in time, or the worker has ended."""
    assert worker.stdout is not None
    poll, deadline, line = select.poll(), time.monotonic() + seconds, b""
    poll.register(worker.stdout, select.POLLIN)
    while not line.endswith(b"\n"):
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            return None
        part = os.read(worker.stdout.fileno(), 4096)
        if not part:
            return None
        line += part
    return line[:-1]


def _forget() -> None:
    """Leave the worker to the process that started it; a forked one would take its replies."""
    global _lock, _worker
    _lock = threading.Lock()  # a thread of the other process may have held it
    if _worker is not None:
        _close_pipes(_worker)  # else the worker would not see the end of the other process
        _worker.returncode = 0  # it is no child of this process, which must not wait for it
        _worker = None


os.register_at_fork(after_in_child=_forget)
atexit.register(_stop)  # without the lock, which a thread may hold
