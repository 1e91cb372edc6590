"""The episodes on which the PRM is trained again during RL, and when.

A PRM predicts the outcomes of the policy whose episodes it has seen. Every ``refresh_every`` iterations it
is trained on the episodes since the last time, from its own weights. The stage passes the function that
trains, because this package imports nothing of ``rlprm.prm``.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from rlprm.data.store import TrajectoryStore
from rlprm.models.manifest import Manifest
from rlprm.rl.config import RLConfig
from rlprm.runtime.processes import Processes, collective
from rlprm.types import Trajectory

__all__ = ["FreshTrajectories", "Refresh"]

log = logging.getLogger(__name__)


class Refresh(Protocol):
    """Trains a PRM again, in all processes of the launch, which share the work."""

    def __call__(self, prm: str, trajectories: Path, output_dir: Path) -> None:
        """Train from the weights in ``prm`` on a folder of trajectories, and save to another folder."""
        ...


class FreshTrajectories:
    """The episodes since the PRM was last trained, on disk, so that a run that was killed has them again.

    Args:
        config: of the run.
        processes: of the launch.
        refresh: trains the PRM.
    """

    def __init__(self, config: RLConfig, processes: Processes, refresh: Refresh) -> None:
        self.config, self.processes, self.refresh = config, processes, refresh
        self.folder = Path(config.output_dir) / "refresh"

    def add(self, iteration: int, trajectories: Sequence[Trajectory]) -> bool:
        """Store the episodes of an iteration; returns whether the PRM is due to be trained."""
        every = self.config.refresh_every
        if not every:
            return False
        if self.processes.is_main:
            if iteration % every == 0:  # left by a killed run that did not resume from there
                shutil.rmtree(self._trajectories(iteration), ignore_errors=True)
            config = self.config
            meta = {
                "environment": config.environment, "env_kwargs": config.env_kwargs, "end": config.end,
                "round_limit": config.round_limit, "prompt": config.prompt,
                "action_format": config.action_format, "temperature": config.temperature,
                "first_iteration": iteration // every * every, "output_dir": config.output_dir,
                **config.environment_sources(),
            }  # fmt: skip
            store = TrajectoryStore.create(self._trajectories(iteration), meta)
            store.write(iteration % every, [_of_one_policy(t, trajectories[0]) for t in trajectories])
        return (iteration + 1) % every == 0

    @collective
    def train(self, iteration: int, prm: str) -> str:
        """Train the PRM again; returns its new folder, the same in every process.

        If all episodes ended alike, they teach no difference, and the PRM stays as it is.
        """
        output = self.folder / f"prm-{iteration + 1:06d}"
        differs = False
        if self.processes.is_main:
            differs = self._differ(iteration, prm)
            # A run that was killed within its refresh trains from the start, as an uninterrupted run does.
            shutil.rmtree(output, ignore_errors=True)
        if not self.processes.gather_all(differs)[0]:
            return prm
        self.refresh(prm, self._trajectories(iteration), output)
        self.processes.wait()  # until the first process has saved the PRM
        return str(output)

    def _differ(self, iteration: int, prm: str) -> bool:
        """Whether there is something to learn: several outcomes, and several tasks to hold some out."""
        trajectories = TrajectoryStore.open(self._trajectories(iteration)).read()
        outcome = self.config.refresh_kwargs.get("outcome", Manifest.load(prm).outcome)
        outcomes = {t.outcome.value(outcome) for t in trajectories}
        if len(outcomes) > 1 and len({t.task.id for t in trajectories}) > 1:
            log.info("training the PRM on the episodes of %d iterations", self.config.refresh_every)
            return True
        log.warning("the PRM stays as it is: all episodes since have one outcome, or one task")
        return False

    def _trajectories(self, iteration: int) -> Path:
        every = self.config.refresh_every
        return self.folder / f"trajectories-{iteration // every * every:06d}"


def _of_one_policy(trajectory: Trajectory, first: Trajectory) -> Trajectory:
    """Call the policies of a window by one name: the PRM learns from all of them alike."""
    return replace(trajectory, policy=f"{first.policy.rpartition('-')[0]}-rl")
