"""Several processes of one launch, each with a device of its own: who does what, and waiting for one another.

Training stages leave this to the trainer. Stages that generate share their work out here:
it falls into parts whose results do not depend on one another, so that any number of processes
gives the same result.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from torch import distributed

from rlprm.errors import ConfigError

_T = TypeVar("_T")
TIMEOUT = timedelta(days=7)
"""How long a process waits for the others: their share of the work may take many hours more."""


@dataclass(frozen=True)
class Processes:
    """The processes of a launch, as seen by one of them."""

    rank: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    def share(self, parts: Sequence[_T]) -> list[_T]:
        """Return the parts that are this process's to do: every ``count``-th."""
        return list(parts[self.rank :: self.count])

    def gather(self, results: Sequence[_T]) -> list[_T]:
        """Put the results of all shares together in the order of the parts; the same in every process.

        Args:
            results: of this process's share, one for each part.
        """
        if self.count == 1:
            return list(results)
        shares = self.gather_all(list(results))
        total = sum(map(len, shares))
        return [shares[part % self.count][part // self.count] for part in range(total)]

    def gather_all(self, own: _T) -> list[_T]:
        """Return what every process has, in the order of their ranks; the same in every process."""
        if self.count == 1:
            return [own]
        every: list[Any] = [None] * self.count
        distributed.all_gather_object(every, own)
        return every

    def wait(self) -> None:
        """Wait until every process has come this far."""
        if self.count > 1:
            distributed.barrier()


SINGLE_PROCESS = Processes()


def is_first() -> bool:
    """Whether this is the only process or the first of a launch; known before they have met."""
    return os.environ.get("RANK", "0") == "0"


def local_count() -> int:
    """Return how many processes of the launch run on this machine; known before they have met."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def start_processes() -> Processes:
    """Meet the other processes of the launch, if any, and take the device that is this one's.

    Raises:
        ConfigError: if the processes that were launched do not find one another.
    """
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched == 1:
        return SINGLE_PROCESS
    # On CPUs this has to be said, or each process would be alone and do everything.
    state = PartialState(cpu=not torch.accelerator.is_available(), timeout=TIMEOUT)
    if state.num_processes != launched:
        raise ConfigError(
            f"{launched} processes were launched, but this one sees {state.num_processes}; "
            "start them with accelerate launch (on CPUs with torchrun)"
        )
    return Processes(state.process_index, state.num_processes)
