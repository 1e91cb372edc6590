"""What two gloo processes run in ``test_collectives``: ``-m tests.runtime.collective_calls CASE FOLDER``.

In each case the second process does something else than the first.
"""

from __future__ import annotations

import os
import sys
import time
from datetime import timedelta
from pathlib import Path

from torch import distributed

from rlprm.errors import TrainingError
from rlprm.runtime.processes import Processes, collective


@collective
def save() -> None:
    """Stand for a checkpoint: every process waits for the others."""
    distributed.barrier()


@collective
def measure() -> list[int]:
    """Stand for an evaluation: every process hears of all."""
    return processes.gather_all(processes.rank)


def agreeing() -> None:
    """All the same, in the same order, nested calls included."""
    for _ in range(3):
        save()
        assert measure() == [0, 1]


def other() -> None:
    """The second process saves while the first one measures."""
    agreeing()
    save() if processes.rank else measure()


def missing() -> None:
    """The second process leaves a call out and is busy elsewhere."""
    save()
    if processes.rank:
        time.sleep(8)
    else:
        save()


CASES = {"agreeing": agreeing, "other": other, "missing": missing}

if __name__ == "__main__":
    distributed.init_process_group("gloo", timeout=timedelta(minutes=2))
    processes = Processes(distributed.get_rank(), distributed.get_world_size())
    message = "nothing"
    try:
        CASES[sys.argv[1]]()
    except TrainingError as error:
        message = str(error)
    (Path(sys.argv[2]) / f"{processes.rank}.txt").write_text(message)
    time.sleep(1)  # the launcher ends both as soon as one has ended
    os._exit(0)
