"""Disjoint task lists out of a few things (levels, goals) and a seed: the numbering environments share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from rlprm.errors import ConfigError
from rlprm.types import Split

_T = TypeVar("_T")
# First seed of each split. A split ends where the next one begins; the last has no end of its own.
_BASES = {Split.TEST: 0, Split.DEV: 100_000, Split.TRAIN: 1_000_000}
_LAST_SEED = 2**31 - 1


def numbered(
    environment: str, split: Split, start: int, count: int, *, kinds: Sequence[_T], kind: str
) -> list[tuple[_T, int]]:
    """Return kind and seed of tasks ``start ... start + count - 1`` of a split.

    Task ``i`` is ``kinds[i % len(kinds)]`` with seed ``base(split) + i // len(kinds)``. The base of
    the test split is 0, that of dev 100,000, that of train 1,000,000: no seed is in two splits.

    Args:
        environment: named in errors.
        split: which of the disjoint task lists.
        start: index of the first task.
        count: how many tasks.
        kinds: what the tasks take turns in, at least one.
        kind: what such a thing is called.

    Raises:
        ConfigError: for a range the split does not have.
    """
    if start < 0 or count < 0:
        raise ConfigError(f"{environment} tasks: start and count must be at least 0, got {start} and {count}")
    base = _BASES[split]
    end = min((other for other in _BASES.values() if other > base), default=_LAST_SEED + 1)
    available = (end - base) * len(kinds)
    if start + count > available:
        raise ConfigError(
            f"{environment} tasks: the {split.value} split has {available} tasks over "
            f"{len(kinds)} {kind}(s); {start} ... {start + count - 1} reaches past its end"
        )
    return [(kinds[i % len(kinds)], base + i // len(kinds)) for i in range(start, start + count)]
