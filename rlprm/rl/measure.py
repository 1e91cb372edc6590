"""How often a policy succeeds, task by task, so that two policies can be compared on the same tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlprm.failures import has_failed, report_failures
from rlprm.functional.bootstrap import Interval, mean_interval, paired_interval
from rlprm.launch import Processes
from rlprm.policies.hf import HFPolicy
from rlprm.rollout import rollout
from rlprm.types import EpisodeSetting, Task, Trajectory

__all__ = ["Success", "compare", "measure", "run_shared"]


@dataclass(frozen=True)
class Success:
    """Mean success of each task, sampled and greedy."""

    sample: dict[str, float]
    greedy: dict[str, float]

    def as_json(self) -> dict[str, object]:
        """Both means with their 95 % intervals over tasks."""
        return {
            "sample": _json(mean_interval(list(self.sample.values()))),
            "greedy": _json(mean_interval(list(self.greedy.values()))),
            "tasks": len(self.sample),
        }


def measure(
    policy: HFPolicy,
    tasks: Sequence[Task],
    setting: EpisodeSetting,
    *,
    samples: int,
    wave_size: int,
    seed: int,
    processes: Processes,
) -> Success:
    """Run every task ``samples`` times at the policy's temperature, and once greedily.

    Failed episodes count as failures: nothing is known of them but that they did not succeed.

    Raises:
        EpisodesFailedError: if none worked: a dead environment must not look like a policy that collapsed.
    """
    jobs = [(task, sample) for task in tasks for sample in range(samples)]
    sampled = run_shared(jobs, policy, setting, wave_size=wave_size, seed=seed, processes=processes)
    cold = policy.at_temperature(0.0)
    greedy = run_shared(
        [(task, 0) for task in tasks], cold, setting, wave_size=wave_size, seed=seed, processes=processes
    )
    report_failures("measured episodes", [*sampled, *greedy])
    return Success(_per_task(sampled), _per_task(greedy))


def compare(before: Success, after: Success) -> dict[str, object]:
    """Return the differences of the means with paired 95 % intervals over tasks."""
    return {
        name: _json(paired_interval(list(b.values()), list(a.values())))
        for name, a, b in (
            ("sample", before.sample, after.sample),
            ("greedy", before.greedy, after.greedy),
        )
    }


def run_shared(
    jobs: Sequence[tuple[Task, int]],
    policy: HFPolicy,
    setting: EpisodeSetting,
    *,
    wave_size: int,
    seed: int,
    processes: Processes,
) -> list[Trajectory]:
    """Run episodes in waves, shared out over the processes; all of them get all trajectories, in order."""
    waves = [list(jobs[start : start + wave_size]) for start in range(0, len(jobs), wave_size)]
    own = [rollout(wave, policy, setting, seed) for wave in processes.share(waves)]
    policy.forget()
    return [trajectory for wave in processes.gather(own) for trajectory in wave]


def _per_task(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for t in trajectories:
        found.setdefault(t.task.id, []).append(float(not has_failed(t) and t.outcome.success))
    return {task: sum(successes) / len(successes) for task, successes in found.items()}


def _json(interval: Interval) -> dict[str, float]:
    return {name: round(value, 4) for name, value in interval._asdict().items()}
