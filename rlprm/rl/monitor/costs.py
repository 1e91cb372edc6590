"""What an iteration costs: tokens a second of each phase, and peaks of memory."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping, Sequence

import torch

__all__ = ["highest", "peak_memory", "tokens_per_second"]

_GIB = 2**30


def tokens_per_second(seconds: Mapping[str, float], tokens: Mapping[str, int]) -> dict[str, float]:
    """Return the rate of each phase, without those that took no time or had no tokens.

    Args:
        seconds: of each phase, as ``time/<phase>``.
        tokens: that each phase has worked on, over all processes.
    """
    return {
        f"time/{phase}_tokens_per_second": round(count / seconds[f"time/{phase}"], 1)
        for phase, count in tokens.items()
        if count and seconds.get(f"time/{phase}", 0.0) > 0
    }


def peak_memory() -> dict[str, float]:
    """Return the peaks of this process so far, in GiB: of the host, and of its GPU if it has one."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    found = {"memory/host_peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _GIB}
    if torch.cuda.is_available():
        found["memory/gpu_peak_gib"] = torch.cuda.max_memory_allocated() / _GIB
    return {name: round(value, 3) for name, value in found.items()}


def highest(peaks: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the highest peak of each kind over the processes."""
    return {name: max(peak[name] for peak in peaks) for name in peaks[0]}
