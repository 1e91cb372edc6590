"""Training the PRM during RL, on the episodes of the policy as it drifts.

A PRM predicts the outcomes of the policy whose episodes it has seen. Every ``refresh_every`` iterations it
is trained on the episodes since the last time, from its own weights, by the stage ``train-prm`` in a process
of its own; it leaves a PRM like any other behind.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from rlprm import labels
from rlprm.data.store import TrajectoryStore
from rlprm.errors import ConfigError, TrainingError
from rlprm.models.manifest import Manifest
from rlprm.rl.config import RLConfig
from rlprm.runtime.processes import Processes, collective
from rlprm.types import Trajectory

__all__ = ["FreshTrajectories", "check_relabelling"]

log = logging.getLogger(__name__)
_FROM_ROLLOUTS = "monte_carlo"
"""Name in a manifest of the labels that ``rlprm estimate`` wrote to a file."""
_WITHOUT_FILE = "returns"
"""Label estimator of fresh episodes if the PRM's own labels came from a file."""
_OF_A_LAUNCH = ("ACCELERATE_", "FSDP_", "MASTER_", "TORCHELASTIC_", "GROUP_", "ROLE_")
_RANKS = frozenset({"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"})


class FreshTrajectories:
    """The episodes since the PRM was last trained, on disk, so that a run that was killed has them again."""

    def __init__(self, config: RLConfig, processes: Processes) -> None:
        self.config, self.processes = config, processes
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
        """Train the PRM on; returns its new folder, the same in every process.

        If all episodes ended alike, they teach no difference, and the PRM stays as it is.

        Raises:
            TrainingError: if the stage fails; its own message is shown before.
        """
        refreshed: str | None = prm
        if self.processes.is_main:
            refreshed = self._train(iteration, prm)
        first = self.processes.gather_all(refreshed)[0]
        if first is None:
            raise TrainingError(f"the PRM could not be trained on {self._trajectories(iteration)}")
        return first

    def _train(self, iteration: int, prm: str) -> str | None:
        """Return the folder of the PRM to continue with; None if its training failed."""
        trajectories = TrajectoryStore.open(self._trajectories(iteration)).read()
        outcome = self.config.refresh_kwargs.get("outcome", Manifest.load(prm).outcome)
        outcomes = {t.outcome.value(outcome) for t in trajectories}
        if len(outcomes) < 2 or len({t.task.id for t in trajectories}) < 2:
            log.warning("the PRM stays as it is: all episodes since have one outcome, or one task")
            return prm
        output = self.folder / f"prm-{iteration + 1:06d}"
        shutil.rmtree(output, ignore_errors=True)
        stage = [sys.executable, "-m", "rlprm.cli", "train-prm"]
        log.info("training the PRM on the episodes of %d iterations", self.config.refresh_every)
        torch.cuda.empty_cache()  # the stage needs memory on the same GPU; without a GPU a no-op
        done = subprocess.run(
            [*stage, *self.arguments(iteration, prm, str(output))],
            env=_outside_the_launch(),
            check=False,
        )
        return None if done.returncode else str(output)

    def _trajectories(self, iteration: int) -> Path:
        every = self.config.refresh_every
        return self.folder / f"trajectories-{iteration // every * every:06d}"

    def arguments(self, iteration: int, prm: str, output: str) -> list[str]:
        """Return the command line of the stage ``train-prm`` that trains the PRM after an iteration."""
        manifest = Manifest.load(prm)
        chosen = self.config.refresh_kwargs
        settings = {
            "model": prm, "trajectories": self._trajectories(iteration), "output_dir": output,
            "seed": self.config.seed,
            "label_estimator": chosen.get("label_estimator") or _estimator_of(manifest),
            "beta": manifest.beta, "loss": manifest.loss, "activation": manifest.activation,
            "relabel": manifest.relabel, "value_reads": manifest.value_reads, "outcome": manifest.outcome,
            "head": manifest.head, "last_step_weight": manifest.last_step_weight,
            "cold_start_epochs": 0, "num_train_epochs": 1, "learning_rate": 1e-4, "eval_strategy": "no",
        }  # fmt: skip
        kwargs = {}
        if settings["label_estimator"] == manifest.label_estimator:
            kwargs = {
                f"label_estimator_kwargs.{name}": value
                for name, value in manifest.label_estimator_kwargs.items()
            }
        if self.config.attn_implementation is not None:
            settings["attn_implementation"] = self.config.attn_implementation
        if self.config.trust_remote_code:
            settings["trust_remote_code"] = True
        if manifest.lm_scale is not None:
            settings["lm_scale"] = manifest.lm_scale
        given = {**settings, **kwargs, **chosen}
        return [word for name, value in given.items() for word in (f"--{name}", str(value))]


def _of_one_policy(trajectory: Trajectory, first: Trajectory) -> Trajectory:
    """Call the policies of a window by one name: the PRM learns from all of them alike."""
    return replace(trajectory, policy=f"{first.policy.rpartition('-')[0]}-rl")


def check_relabelling(config: RLConfig) -> None:
    """Refuse a run that would have to load code that a PRM names, and its settings do not.

    Raises:
        ConfigError: saying which setting names the code.
    """
    if config.refresh_every and config.prm and not config.refresh_kwargs.get("label_estimator"):
        _estimator_of(Manifest.load(config.prm))


def _estimator_of(manifest: Manifest) -> str:
    """Return what labels the fresh episodes: the PRM's estimator, if it is a built-in one.

    Labels that no estimator makes (Monte-Carlo ones) were a file, of other episodes than these.

    Raises:
        ConfigError: for a module of the user's own. A PRM comes from a folder; only settings name code.
    """
    name = manifest.label_estimator
    if name in labels.available():
        return name
    if name != _FROM_ROLLOUTS:
        raise ConfigError(
            f"refresh_kwargs.label_estimator: nothing given, and the PRM learned from {name!r}, a module of "
            "your own; name the module here to load its code"
        )
    log.warning(
        "the PRM learned %s labels from a file, which has none of fresh episodes; those learn %s",
        manifest.label_estimator, _WITHOUT_FILE,
    )  # fmt: skip
    return _WITHOUT_FILE


def _outside_the_launch() -> dict[str, str]:
    """Return the environment of a process outside the launch that uses only the GPU of this one."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in _RANKS and not name.startswith(_OF_A_LAUNCH)
    }
    if torch.cuda.is_available():  # it would use all GPUs, whose processes wait for it
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        own = torch.cuda.current_device()
        environment["CUDA_VISIBLE_DEVICES"] = seen[own] if own < len(seen) and seen[own] else str(own)
    return environment
