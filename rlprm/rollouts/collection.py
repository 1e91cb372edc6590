"""Collections: every task several times, wave by wave, on disk."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

from tqdm.auto import tqdm

from rlprm.data.failures import has_failed
from rlprm.data.store import TrajectoryStore
from rlprm.errors import MismatchError
from rlprm.policies.base import Policy
from rlprm.policies.self_check import FirstWaveCheck
from rlprm.rollouts.episode import episode_seed
from rlprm.rollouts.free_running import FreePolicy, episodes_as_they_end
from rlprm.rollouts.waves import free_policy, rollout
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
        wanted = [_Wave(number, waves[number], store) for number in missing]
        free = free_policy(policy)
        complete = (
            _run_in_turn(wanted, policy, setting, seed, bar.update)
            if free is None
            else _run_freely(wanted, free, setting, seed, bar.update, in_flight=wave_size)
        )
        for stored, (wave, trajectories) in enumerate(complete, start=len(own) - len(missing) + 1):
            check(policy, trajectories)
            store.write(wave.number, wave.with_kept(trajectories))
            bar.update(len(wave.jobs) - len(wave.missing))
            bar.set_postfix_str(f"{stored} of {len(own)} waves stored")
    processes.wait()
    return store


class _Wave:
    """A wave that is not complete, and the episodes that are there already."""

    def __init__(self, number: int, jobs: Sequence[tuple[Task, int]], store: TrajectoryStore) -> None:
        self.number, self.jobs = number, jobs
        before = store.read_wave(number) if store.has(number) else []
        self._kept = {(t.task.id, t.sample): t for t in before if not has_failed(t)}
        self.missing = [(task, sample) for task, sample in jobs if (task.id, sample) not in self._kept]

    def with_kept(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        """Return all episodes of the wave, given the missing ones."""
        found = self._kept | {(t.task.id, t.sample): t for t in trajectories}
        return [found[task.id, sample] for task, sample in self.jobs]


def _run_in_turn(
    waves: Sequence[_Wave],
    policy: Policy,
    setting: EpisodeSetting,
    seed: int,
    on_end: Callable[[int], object],
) -> Iterator[tuple[_Wave, list[Trajectory]]]:
    """Run one wave after the other, each in lock step."""
    for wave in waves:
        yield wave, rollout(wave.missing, policy, setting, seed, on_end=on_end)


def _run_freely(
    waves: Sequence[_Wave],
    policy: FreePolicy,
    setting: EpisodeSetting,
    seed: int,
    on_end: Callable[[int], object],
    *,
    in_flight: int,
) -> Iterator[tuple[_Wave, list[Trajectory]]]:
    """Run the episodes of all waves, and yield each wave when it is complete."""
    owners = [(wave, job) for wave in waves for job in wave.missing]
    jobs = [(task, sample, episode_seed(seed, task, sample)) for _, (task, sample) in owners]
    done: dict[int, list[Trajectory]] = {wave.number: [] for wave in waves}
    for number, trajectory in episodes_as_they_end(jobs, policy, setting, in_flight=in_flight):
        on_end(1)
        wave, _ = owners[number]
        done[wave.number].append(trajectory)
        if len(done[wave.number]) == len(wave.missing):
            yield wave, done.pop(wave.number)


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
