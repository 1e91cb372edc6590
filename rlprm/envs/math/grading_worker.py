"""The process that compares formulas; :mod:`rlprm.envs.math.grading` starts it, and nothing imports it.

The process reads ``[formula, number]`` as JSON, a line each, and writes ``1`` or ``0``, a line each. A fork
of the process answers each question, and the system ends the fork when its time is over. A number such as
``9^9^9^9`` is computed in C, where no exception reaches the computation. The limit is one of processor
time, so that a busy machine does not make a right answer wrong.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import select
import signal
import sys
from collections.abc import Callable

Equals = Callable[[str, str], bool]

_PROCESSOR_SECONDS = 0.5
_SECONDS = 5.0  # for a fork that waits for memory
_BYTES = 2 << 30
_EQUAL, _DIFFERENT = 10, 11
_IDLE_SECONDS = 2.0
# The parser learns a grammar's paths as it meets them, and what a fork learns is lost.
_WARM_UP = (
    "1", "1.5", "-2", "x=18", "\\frac{1}{2}", "\\frac{36}{2}+1", "\\sqrt{324}", "2^{10}", "3\\times 6",
    "3\\cdot 6", "(3+4)\\cdot 2", "36/2", "12+6=18", "2x", "5, 18", "\\pi r^2", "\\log_2 8",
    "18\\%", "x^2-1", "3!",
)  # fmt: skip


def main() -> int:
    """Serve until the parent has ended."""
    parent = os.getppid()
    replies = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # a library that prints must not answer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, whose end this process sees
    # Both are inherited, and would keep the limits from ending a fork.
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        equals = _load()
    except Exception as error:
        os.write(
            replies,
            f"{type(error).__name__}: {error}".encode(errors="replace")[:500].replace(b"\n", b" ") + b"\n",
        )
        return 1
    gc.freeze()
    os.write(replies, b"ready\n")
    unread = b""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    while True:
        if not poll.poll(_IDLE_SECONDS * 1000):
            if os.getppid() != parent:  # a fork of the parent may hold the pipe open
                return 0
            continue
        part = os.read(0, 1 << 16)
        if not part:
            return 0
        *lines, unread = (unread + part).split(b"\n")
        for line in lines:
            formula, number = json.loads(line)
            os.write(replies, b"1\n" if _in_fork(equals, formula, number) else b"0\n")


def _load() -> Equals:
    """Import math-verify, and return what compares a formula with a number."""
    from math_verify import LatexExtractionConfig, parse, verify

    # The formula is the whole answer: nothing is searched for in it.
    reading = [LatexExtractionConfig(try_extract_without_anchor=False, boxed_match_priority=0)]

    def read(text: str) -> list[object]:
        found: list[object] = parse(
            f"\\boxed{{{text}}}", reading, fallback_mode="no_fallback", parsing_timeout=None
        )
        return found

    def equals(formula: str, number: str) -> bool:
        return bool(verify(read(number), read(formula), timeout_seconds=None))

    if not equals("\\frac{36}{2}", "18") or equals("\\frac{36}{2}", "17"):
        raise RuntimeError("math-verify does not find that 36/2 is 18")
    for formula in _WARM_UP:
        equals(formula, "18")
    return equals


def _in_fork(equals: Equals, formula: str, number: str) -> bool:
    """Answer one question in a process that may die of it."""
    child = os.fork()
    if child == 0:
        verdict = _DIFFERENT
        try:
            _limit()
            verdict = _EQUAL if equals(formula, number) else _DIFFERENT
        finally:
            os._exit(verdict)
    _, status = os.waitpid(child, 0)
    return os.WIFEXITED(status) and os.WEXITSTATUS(status) == _EQUAL


def _limit() -> None:
    """Let the system end this process when it has used its time; it gets no memory beyond its share."""
    signal.setitimer(signal.ITIMER_PROF, _PROCESSOR_SECONDS)
    signal.setitimer(signal.ITIMER_REAL, _SECONDS)
    with contextlib.suppress(ValueError, OSError):  # a lower limit is there, or the system has none
        resource.setrlimit(resource.RLIMIT_AS, (_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))


if __name__ == "__main__":
    sys.exit(main())
