"""Stage 2: a policy acts in an environment; trajectories go to disk, wave by wave."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass

from rlprm import envs
from rlprm.data.failures import report_failures
from rlprm.data.store import TrajectoryStore
from rlprm.errors import ConfigError
from rlprm.models.loading import revision_of
from rlprm.policies.config import PolicyConfig
from rlprm.rollouts.collection import collect
from rlprm.runtime.config import own_settings, setting
from rlprm.runtime.processes import start_processes
from rlprm.runtime.provenance import warn_of_policy
from rlprm.runtime.record import FAILED, is_finished, recorded
from rlprm.types import Split

log = logging.getLogger(__name__)


@dataclass
class CollectConfig(PolicyConfig):
    """Settings of ``rlprm collect``."""

    split: str = setting("train", "Task list: train, dev or test.")
    first_task: int = setting(0, "First task of the split.")
    num_tasks: int = setting(256, "Number of tasks.")
    samples_per_task: int = setting(16, "Trajectories per task (the paper's N_TD).")
    output_dir: str = setting("runs/trajectories", "Where the trajectories go.")

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        super().__post_init__()
        if self.split not in set(Split):
            raise ConfigError(f"split: got {self.split!r}, allowed: {', '.join(Split)}")
        for name in ("num_tasks", "samples_per_task"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: got {getattr(self, name)}, allowed: 1 or more")


def run(config: CollectConfig) -> TrajectoryStore:
    """Collect trajectories; waves that are already there are kept.

    Several processes share the waves; the first one records the run when all are there.
    """
    identity = {**own_settings(config), "revision": revision_of(config.model), **config.environment_sources()}
    if is_finished(config.output_dir, "collect", identity):
        log.info("%s holds the trajectories of these settings; reusing them", config.output_dir)
        return TrajectoryStore.open(config.output_dir)
    warn_of_policy(config)
    tasks = envs.tasks(
        config.environment, Split(config.split), config.first_task, config.num_tasks, config.env_kwargs
    )
    processes = start_processes()
    with recorded(config.output_dir, "collect", identity) as results:
        policy = config.load_policy()
        store = collect(
            policy,
            tasks,
            config.episode_setting(),
            folder=config.output_dir,
            samples_per_task=config.samples_per_task,
            wave_size=config.wave_size,
            seed=config.seed,
            meta=config.collection_meta(policy),
            processes=processes,
        )
        trajectories = store.read()
        results[FAILED] = report_failures("rollouts", trajectories)
        results.update(
            trajectories=len(trajectories),
            success_rate=sum(t.outcome.success for t in trajectories) / len(trajectories),
            env_steps=sum(len(t.steps) for t in trajectories),
            policy_tokens=sum(t.action_tokens for t in trajectories),
            stops=dict(Counter(t.stop.value for t in trajectories if t.stop)),
        )
    return store
