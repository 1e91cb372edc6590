"""Trajectories → AgentGym's format (AgentTraj): for its trainers, or for ``rlprm sft --demonstrations``."""

from __future__ import annotations

import logging

from rlprm.data.failures import has_failed
from rlprm.data.importers.agentgym import write_items
from rlprm.data.store import TrajectoryStore
from rlprm.errors import DataError
from rlprm.stages.settings import ExportConfig

log = logging.getLogger(__name__)


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
