"""Several processes of one launch, each with a device of its own: who does what, and waiting for one another.

Training stages leave this to the trainer. Stages that generate share their work out here:
it falls into parts whose results do not depend on one another, so that any number of processes
gives the same result.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar

import torch
from accelerate import PartialState
from torch import distributed
from torch.distributed.distributed_c10d import PrefixStore, Store, _get_default_store

from rlprm.errors import ConfigError, TrainingError

_T = TypeVar("_T")
_P = ParamSpec("_P")
DEBUG_COLLECTIVES = "RLPRM_DEBUG_COLLECTIVES"
"""Environment variable: 1 checks collective calls; a larger number is the time limit in seconds, too."""
COLLECTIVES: set[str] = set()
"""Full names of the functions marked by :func:`collective`."""
_DEFAULT_LIMIT = 600.0
TIMEOUT = timedelta(days=7)
"""How long a process waits for the others: their share of the work may take many hours more."""


def collective(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Mark a function that every process of a launch must call, in the same order as all other marked ones.

    A process that leaves out such a call makes the others wait, often for hours. If the environment variable
    ``RLPRM_DEBUG_COLLECTIVES`` is set, each call first compares its name over the processes; without it the
    mark costs nothing.

    Raises:
        TrainingError: from the marked function, if the variable is set and another process has called
            something else, or nothing within the time limit.
    """
    COLLECTIVES.add(f"{function.__module__}.{function.__qualname__}")

    @functools.wraps(function)
    def checked(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        if os.environ.get(DEBUG_COLLECTIVES, "0") not in ("", "0"):
            _compare_calls(function.__qualname__)
        return function(*args, **kwargs)

    return checked


class _Calls:
    """Number of checked calls so far, equal in all processes as long as they agree."""

    number = 0


def _compare_calls(name: str) -> None:
    """Raise unless every process makes the same call now."""
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return
    _Calls.number += 1
    # Not a collective itself: keys in the launch's store can say which process is missing.
    store = PrefixStore("rlprm/collectives", _get_default_store())
    rank, number = distributed.get_rank(), _Calls.number
    store.set(f"{number}/{rank}", name)
    store.delete_key(f"{number - 2}/{rank}")  # which all have read, since all have made the call before this
    deadline = time.monotonic() + _time_limit()
    calls = {
        other: _call_of(store, f"{number}/{other}", deadline) for other in range(distributed.get_world_size())
    }
    if set(calls.values()) != {name}:
        raise TrainingError(f"the processes disagree at collective call {number}: {_listed(calls)}")


def _time_limit() -> float:
    try:
        given = float(os.environ[DEBUG_COLLECTIVES])
    except ValueError:
        raise ConfigError(
            f"{DEBUG_COLLECTIVES}: got {os.environ[DEBUG_COLLECTIVES]!r}, allowed: 1, or a number of seconds"
        ) from None
    return given if given > 1 else _DEFAULT_LIMIT


def _call_of(store: Store, key: str, deadline: float) -> str | None:
    left = max(0.01, deadline - time.monotonic())
    try:
        store.wait([key], timedelta(seconds=left))
        return str(store.get(key).decode())
    except RuntimeError:  # time is up, or the process that holds the store is gone
        return None


def _listed(calls: Mapping[int, str | None]) -> str:
    """Return "rank 0 called a; ranks 1, 2 called b; rank 3 called nothing in time"."""
    ranks: dict[str, list[int]] = {}
    for rank, name in calls.items():
        ranks.setdefault(name or "nothing in time", []).append(rank)
    return "; ".join(
        f"{'rank' if len(of) == 1 else 'ranks'} {', '.join(map(str, of))} called {name}"
        for name, of in ranks.items()
    )


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

    @collective
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

    @collective
    def gather_all(self, own: _T) -> list[_T]:
        """Return what every process has, in the order of their ranks; the same in every process."""
        if self.count == 1:
            return [own]
        every: list[Any] = [None] * self.count
        distributed.all_gather_object(every, own)
        return every

    @collective
    def wait(self) -> None:
        """Wait until every process has come this far."""
        if self.count > 1:
            distributed.barrier()


SINGLE_PROCESS = Processes()


def is_first() -> bool:
    """Whether this is the only process or the first of a launch; known before they have met."""
    return os.environ.get("RANK", "0") == "0"


def launched_count() -> int:
    """Return how many processes the launch has; known before they have met."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_count() -> int:
    """Return how many processes of the launch run on this machine; known before they have met."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def start_processes() -> Processes:
    """Meet the other processes of the launch, if any, and take the device that is this one's.

    Raises:
        ConfigError: if the processes that were launched do not find one another.
    """
    launched = launched_count()
    if launched == 1:
        return SINGLE_PROCESS
    # Without cpu=True, processes on CPUs would not find one another: each would do all of the work.
    state = PartialState(cpu=not torch.accelerator.is_available(), timeout=TIMEOUT)
    if state.num_processes != launched:
        raise ConfigError(
            f"{launched} processes were launched, but this one sees {state.num_processes}; "
            "start them with accelerate launch (on CPUs with torchrun)"
        )
    return Processes(state.process_index, state.num_processes)
