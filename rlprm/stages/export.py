"""Trajectories → AgentGym's format (AgentTraj): for its trainers, or for ``rlprm sft --demonstrations``."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from rlprm.data.failures import has_failed
from rlprm.data.importers.agentgym import write_items
from rlprm.data.store import TrajectoryStore
from rlprm.errors import ConfigError, DataError
from rlprm.runtime.config import setting

log = logging.getLogger(__name__)


@dataclass
class ExportConfig:
    """Settings of ``rlprm export``."""

    trajectories: str = setting("", "Folder of trajectories (made by rlprm collect).")
    only_successes: bool = setting(True, "Leave out trajectories without success.")
    output: str = setting("runs/export.json", "File they go to, a JSON list with a trajectory a line.")

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            ConfigError: naming the setting, what was received and what is allowed.
        """
        if not self.trajectories:
            raise ConfigError("trajectories: nothing given; set it in the recipe or with --trajectories")


def run(config: ExportConfig) -> None:
    """Write the trajectories that did not fail and have an action.

    Raises:
        ArtifactError: if there are no trajectories.
        DataError: if none of them is left.
    """
    found = TrajectoryStore.open(config.trajectories).read()
    usable = [t for t in found if t.steps and not has_failed(t)]
    chosen = [t for t in usable if t.outcome.success or not config.only_successes]
    if not chosen:
        raise DataError(f"none of the {len(found)} trajectories in {config.trajectories} is to be written")
    write_items(config.output, chosen)
    log.info("%d of %d trajectories written: %s", len(chosen), len(found), config.output)
