"""Work that the memory of the device is too small for is tried once more in smaller parts."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable
from typing import TypeVar

from rlprm.errors import OutOfDeviceMemoryError

__all__ = ["is_out_of_memory", "release", "too_small", "within_memory"]

log = logging.getLogger(__name__)
_T = TypeVar("_T")


def within_memory(
    attempt: Callable[[int], _T], size: int, *, setting: str, again: bool = True
) -> tuple[_T, int]:
    """Do a piece of work in parts of a size and, if memory runs out, once more in parts of half the size.

    Args:
        attempt: does all of the work in parts of the size given, from the beginning.
        size: of the parts.
        setting: that the size comes from.
        again: False if other processes take part, which would not begin again.

    Returns:
        The result, and the size that the memory suffices for.

    Raises:
        OutOfDeviceMemoryError: if the memory is too small for half the size, too, or is not tried again.
    """
    try:
        return attempt(size), size
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        if not again or size < 2:
            raise too_small(setting, size) from None
    release()  # outside the handler, whose traceback holds the tensors of the attempt
    half = size // 2
    log.warning("out of memory with %s %d: once more with %d", setting, size, half)
    try:
        return attempt(half), half
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise too_small(setting, half) from None


def too_small(setting: str, size: int) -> OutOfDeviceMemoryError:
    """Return the error of a device whose memory is too small.

    Args:
        setting: that decides how much is needed.
        size: at which memory ran out.
    """
    return OutOfDeviceMemoryError(
        f"{setting}: out of memory at {size}; lower it and run the same command again"
    )


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether torch raised an error because the memory of the device is too small.

    The module does not import torch, since rollouts and reports work without.
    """
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.OutOfMemoryError)


def release() -> None:
    """Give back what a failed attempt has left on the device."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
