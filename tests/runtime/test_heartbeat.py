"""A process that is stopped or gone ends the run of the others; long work does not."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlprm.runtime.supervision.heartbeat import Beat, Watch

ROOT = Path(__file__).parents[2]


def launch(case: str, limit: float) -> tuple[list[int | None], list[str], float]:
    """Statuses of two processes (None: it had to be killed), what they said, and the seconds it took."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    base = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2"}
    started = time.monotonic()
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.runtime.heartbeat_calls", case, str(limit)],
            cwd=ROOT, env={**base, "RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        awaited = [p for rank, p in enumerate(processes) if case != str(rank)]
        for process in awaited:
            process.wait(timeout=90)
        seconds = time.monotonic() - started
        statuses = [process.poll() for process in processes]
    finally:
        for process in processes:
            process.kill()
    return statuses, [process.communicate()[1] for process in processes], seconds


@pytest.mark.slow
def test_long_work_is_waited_for_and_a_process_that_has_ended_well_is_not_missed() -> None:
    assert launch("busy", 2.0)[0] == [0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_stopped_ends_the_other(rank: int) -> None:
    statuses, said, seconds = launch(str(rank), 2.0)
    assert statuses[1 - rank] == 1
    cause = "no sign of life of rank 1 for 2 s" if rank else "no answer of the launch's store (rank 0, or the"
    assert f"rlprm: TrainingError: {cause}" in said[1 - rank]
    assert seconds < 60


@pytest.mark.slow
def test_processes_that_wait_for_each_other_end() -> None:
    statuses, said, _ = launch("deadlocked", 3.0)
    assert 1 in statuses
    line = "all processes have waited for each other for 3 s: rank 0 in group 1; rank 1 in group 0"
    assert any(line in text for text in said)


# --- by hand ---


def test_a_count_that_stands_still_for_the_limit_is_a_process_without_life() -> None:
    watch = Watch(limit=6.0, interval=2.0)
    counts = [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 2), (7, 2)]
    found = [watch.verdict([Beat(a), Beat(b)]) for a, b in counts]
    assert found[:6] == [""] * 6, "two rounds of silence, then a sign"
    assert found[6] == "no sign of life of rank 1 for 6 s (heartbeat_timeout): stopped, or gone"


def test_a_process_that_has_ended_well_is_left_out() -> None:
    watch = Watch(limit=2.0, interval=1.0)
    assert all(watch.verdict([Beat(number), None]) == "" for number in range(9))


def test_all_must_wait_for_as_long() -> None:
    watch = Watch(limit=5.0, interval=1.0)
    assert watch.verdict([Beat(1, "wait", 100.0), Beat(1)]) == "", "one works"
    assert watch.verdict([Beat(2, "wait", 100.0), Beat(2, "gather_all", 4.0)]) == ""
    assert watch.verdict([Beat(3, "wait", 100.0), Beat(3, "gather_all", 5.0)]) == (
        "all processes have waited for each other for 5 s: rank 0 in wait; rank 1 in gather_all"
    )
