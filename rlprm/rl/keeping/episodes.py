"""Episodes of a run on disk, as ``collect`` writes them: one shard an iteration.

A shard appears whole or not at all, and is named after its iteration. An iteration that runs again after a
resume writes the same shard again, so no episode is there twice.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlprm.data.store import TrajectoryStore
from rlprm.errors import ConfigError
from rlprm.policies.config import PolicyConfig
from rlprm.types import Trajectory

__all__ = ["KeptEpisodes", "kept_count", "meta_of_episodes", "of_one_policy"]

_LAST = re.compile(r"last (\d+)")


def kept_count(keep: str) -> int | None:
    """Return how many iterations' episodes are kept: None for all.

    Raises:
        ConfigError: unless the setting is ``all``, ``none`` or ``last N`` with N from 1 on.
    """
    if keep == "all":
        return None
    if keep == "none":
        return 0
    found = _LAST.fullmatch(keep)
    if found is None or not int(found[1]):
        raise ConfigError(f"keep_rollouts: got {keep!r}, allowed: none, all, last N (with N from 1 on)")
    return int(found[1])


def meta_of_episodes(config: PolicyConfig, output_dir: str, **more: object) -> dict[str, Any]:
    """Return what a folder of a run's episodes says of them."""
    return {
        "environment": config.environment, "env_kwargs": config.env_kwargs, "end": config.end,
        "round_limit": config.round_limit, "prompt": config.prompt,
        "action_format": config.action_format, "temperature": config.temperature,
        "output_dir": output_dir, **more, **config.environment_sources(),
    }  # fmt: skip


def of_one_policy(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """Call the policies of a run by one name: a PRM learns from all of them alike."""
    return [replace(t, policy=f"{t.policy.rpartition('-')[0]}-rl") for t in trajectories]


class KeptEpisodes:
    """The folder ``rollouts`` of a run.

    Args:
        folder: of the run.
        keep: ``all``, ``none`` or ``last N``.
        meta: see :func:`meta_of_episodes`.
        writes: whether this process is the one that writes.
    """

    def __init__(self, folder: Path, keep: str, meta: Mapping[str, Any], *, writes: bool) -> None:
        self.folder, self.meta = folder / "rollouts", meta
        self._count = kept_count(keep)
        self._writes = writes and self._count != 0

    def add(self, iteration: int, trajectories: Sequence[Trajectory]) -> None:
        """Keep the episodes of an iteration, failed ones included, and drop those that are too old."""
        if not self._writes:
            return
        if not iteration:  # left by a killed run that did not resume
            shutil.rmtree(self.folder, ignore_errors=True)
        store = TrajectoryStore.create(self.folder, self.meta)
        store.write(iteration, of_one_policy(trajectories))
        if self._count is not None:
            for shard in self.folder.glob("wave-*.jsonl"):
                if int(shard.stem.removeprefix("wave-")) <= iteration - self._count:
                    shard.unlink()
