"""Where episodes come from: the policy under training, in this process or on servers.

The loop acts through a sampler only. After each update ``sync`` hands the sampler the new weights, and
``collect`` runs episodes with the weights of the last ``sync``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from rlprm.policies.base import LoadedPolicy, Policy
from rlprm.policies.self_check import FirstWaveCheck
from rlprm.rl.engine import Engine
from rlprm.rollouts.waves import free_policy, rollout
from rlprm.runtime.processes import Processes, collective
from rlprm.types import EpisodeSetting, Task, Trajectory

__all__ = ["Sampler", "gather_shares", "run_distributed", "run_share"]


class Sampler(Protocol):
    """Runs episodes with the weights of the last ``sync``."""

    @property
    def policy(self) -> Policy:
        """Renderer and limits of the policy, to replay stored episodes with; only ``collect`` acts."""
        ...

    @property
    def in_half(self) -> bool:
        """Whether the policy acts in less than float32, whatever it is trained in."""
        ...

    @property
    def is_exact(self) -> bool:
        """Whether the policy acts with the very weights that are trained, in this process, in float32."""
        ...

    @collective
    def sync(self, engine: Engine, *, version: int) -> None:
        """Take over the weights of the policy under training.

        Args:
            engine: holds the policy.
            version: number of iterations behind these weights; stored with each trajectory.
        """
        ...

    @collective
    def acting_as(self, model: str) -> AbstractContextManager[None]:
        """Act with a saved policy (a folder or a hub id) inside the context, with the synced one after."""
        ...

    @collective
    def collect(
        self, jobs: Sequence[tuple[Task, int]], setting: EpisodeSetting, *, greedy: bool = False
    ) -> list[Trajectory]:
        """Run an episode for each (task, sample number); every process gets all of them, in order."""
        ...

    def offloaded(self) -> AbstractContextManager[None]:
        """Keep own copies of the policy in host memory within a block, in which nothing acts."""
        ...


@collective
def run_distributed(
    jobs: Sequence[tuple[Task, int]],
    policy: LoadedPolicy,
    setting: EpisodeSetting,
    *,
    wave_size: int,
    seed: int,
    processes: Processes,
    check: FirstWaveCheck | None = None,
) -> list[Trajectory]:
    """Run episodes in waves that the processes share; every process gets all trajectories, in order.

    Waves are smaller than ``wave_size`` if some processes would otherwise have none. ``check`` is called with
    each wave, before the next one is run. Episodes that do not wait for each other know no waves: as many run
    at one time, and ``check`` is called with all of them.
    """
    own = run_share(jobs, policy, setting, wave_size=wave_size, seed=seed, processes=processes, check=check)
    return gather_shares(own, processes)


def run_share(
    jobs: Sequence[tuple[Task, int]],
    policy: LoadedPolicy,
    setting: EpisodeSetting,
    *,
    wave_size: int,
    seed: int,
    processes: Processes,
    check: FirstWaveCheck | None,
) -> list[list[Trajectory]]:
    """Run this process's waves; see :func:`run_distributed`. No other process is waited for."""
    size = max(1, min(wave_size, math.ceil(len(jobs) / processes.count)))
    waves = [list(jobs[start : start + size]) for start in range(0, len(jobs), size)]
    shared = processes.share(waves)
    own = []
    if free_policy(policy):  # whose episodes wait for no wave
        done = iter(rollout([job for wave in shared for job in wave], policy, setting, seed, in_flight=size))
        own = [[next(done) for _ in wave] for wave in shared]
        if check is not None:
            check(policy, [trajectory for wave in own for trajectory in wave])
    else:
        for wave in shared:
            own.append(rollout(wave, policy, setting, seed))
            if check is not None:
                check(policy, own[-1])
    policy.clear()
    return own


@collective
def gather_shares(own: Sequence[list[Trajectory]], processes: Processes) -> list[Trajectory]:
    """Return the trajectories of all processes' waves, in order."""
    return [trajectory for wave in processes.gather(own) for trajectory in wave]
