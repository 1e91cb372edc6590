"""What two gloo processes do in ``test_heartbeat``: ``-m tests.runtime.heartbeat_calls CASE LIMIT``."""

from __future__ import annotations

import os
import signal
import sys
import time
from datetime import timedelta

from torch import distributed

from rlprm.runtime.processes import Processes
from rlprm.runtime.supervision.heartbeat import waiting, watched_processes


def stopped(processes: Processes, which: int) -> None:
    """One process is stopped while the other waits for it."""
    if processes.rank == which:
        os.kill(os.getpid(), signal.SIGSTOP)
    processes.gather_all(1)


def deadlocked(processes: Processes) -> None:
    """Each process waits in the group that the other one comes to later."""
    groups = [distributed.new_group([0, 1]) for _ in range(2)]
    for number in (0, 1) if processes.rank else (1, 0):
        with waiting(f"group {number}"):
            distributed.barrier(groups[number])


def busy(processes: Processes, limit: float) -> None:
    """One process works for longer than the limit, the other waits; then both go on."""
    if processes.rank:
        time.sleep(3 * limit)
    assert processes.gather_all(processes.rank) == [0, 1]


if __name__ == "__main__":
    case, seconds = sys.argv[1], float(sys.argv[2])
    distributed.init_process_group("gloo", timeout=timedelta(days=7))
    both = Processes(distributed.get_rank(), distributed.get_world_size())
    with watched_processes(seconds):
        if case == "deadlocked":
            deadlocked(both)
        elif case == "busy":
            busy(both, seconds)
        else:
            stopped(both, int(case))
    if both.is_main:
        time.sleep(2 * seconds)  # the other one has ended well, and is not missed
    distributed.destroy_process_group()
    os._exit(0)  # gloo's threads may abort a process while its interpreter ends
