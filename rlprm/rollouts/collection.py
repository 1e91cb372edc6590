"""Collections: every task several times, wave by wave, on disk."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from tqdm.auto import tqdm

from rlprm.data.failures import has_failed
from rlprm.data.store import TrajectoryStore
from rlprm.errors import MismatchError
from rlprm.policies.base import Policy
from rlprm.policies.self_check import FirstWaveCheck
from rlprm.rollouts.episode import rollout
from rlprm.runtime.processes import SINGLE_PROCESS, Processes
from rlprm.types import EpisodeSetting, Task, Trajectory

__all__ = ["collect"]

log = logging.getLogger(__name__)


def collect(
    policy: Policy,
    tasks: Sequence[Task],
    setting: EpisodeSetting,
    *,
    folder: str,
    samples_per_task: int,
    wave_size: int,
    seed: int,
    meta: dict[str, object],
    processes: Processes = SINGLE_PROCESS,
) -> TrajectoryStore:
    """Run every task ``samples_per_task`` times and store the trajectories.

    Episodes run in fixed waves, each a shard on disk; an episode's random numbers
    depend on the seed, its task and its sample number. A killed collection
    therefore continues to exactly the same result, and several processes, each of
    which takes its share of the waves, come to it too. All of them return when all waves are there.
    Episodes that failed are run again.

    Some log-probabilities of the first wave that a process runs are checked before the wave is stored.

    Raises:
        MismatchError: if the folder holds trajectories collected with other settings, or the stored
            log-probabilities are not those of the policy (:mod:`rlprm.policies.self_check`).
    """
    jobs = [(task, sample) for task in tasks for sample in range(samples_per_task)]
    store = TrajectoryStore.create(
        folder,
        {
            **meta,
            "end": setting.end.value,
            "round_limit": setting.round_limit,
            "prompt": setting.prompt,
            "action_format": setting.action_format,
            "policy": policy.revision,
            "temperature": policy.temperature,
            "max_new_tokens": policy.max_new_tokens,
            "context_length": policy.context_length,
            "seed": seed,
            "samples_per_task": samples_per_task,
            "wave_size": wave_size,
            "first_task": tasks[0].id,
            "num_tasks": len(tasks),
        },
    )
    waves = [jobs[start : start + wave_size] for start in range(0, len(jobs), wave_size)]
    own = processes.share(range(len(waves)))
    missing = [number for number in own if not _is_complete(store, number, waves[number])]
    if len(missing) < len(own):
        log.info(
            "%s: %d of %d waves are there; collecting the rest", folder, len(own) - len(missing), len(own)
        )
    total, rest = (sum(len(waves[number]) for number in of) for of in (own, missing))
    check = FirstWaveCheck()
    with tqdm(total=total, initial=total - rest, desc="rollouts", disable=not processes.is_main) as bar:
        for number in missing:
            before = store.read_wave(number) if store.has(number) else []
            store.write(number, _run_wave(waves[number], before, policy, setting, seed, check))
            bar.update(len(waves[number]))
    processes.wait()
    return store


def _is_complete(store: TrajectoryStore, number: int, jobs: Sequence[tuple[Task, int]]) -> bool:
    """Whether a wave is there and none of its episodes failed.

    Raises:
        MismatchError: if a stored episode is of another environment than the wave's tasks.
    """
    if not store.has(number):
        return False
    stored, own = store.read_wave(number), {task.environment for task, _ in jobs}
    for trajectory in stored:
        if trajectory.task.environment not in own:
            raise MismatchError(
                f"{store.folder}, wave {number} holds an episode of the environment "
                f"{trajectory.task.environment!r} (task {trajectory.task.id!r}), the run's is "
                f"{', '.join(map(repr, sorted(own)))}"
            )
    return not any(map(has_failed, stored))


def _run_wave(
    jobs: Sequence[tuple[Task, int]],
    before: Sequence[Trajectory],
    policy: Policy,
    setting: EpisodeSetting,
    seed: int,
    check: FirstWaveCheck,
) -> list[Trajectory]:
    """Run the episodes of a wave that did not come to an end before."""
    done = {(t.task.id, t.sample): t for t in before if not has_failed(t)}
    rest = [(task, sample) for task, sample in jobs if (task.id, sample) not in done]
    fresh = rollout(rest, policy, setting, seed)
    check(policy, fresh)
    ran = iter(fresh)
    return [done[task.id, sample] if (task.id, sample) in done else next(ran) for task, sample in jobs]
