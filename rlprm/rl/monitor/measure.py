"""How well a policy does, task by task, so that two policies can be compared on the same tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

from rlprm.data.failures import has_failed, report_failures
from rlprm.functional.bootstrap import Interval, mean_interval, paired_interval
from rlprm.policies.hf import HFPolicy
from rlprm.rollouts.episode import rollout
from rlprm.runtime.processes import Processes
from rlprm.types import EpisodeSetting, Task, Trajectory

__all__ = ["TaskResults", "measure_policy", "paired_differences", "run_distributed"]


@dataclass(frozen=True)
class TaskResults:
    """What came out of each task, a mean over its episodes, sampled and greedy."""

    sample: dict[str, float]
    """Success, sampled."""
    greedy: dict[str, float]
    """Success, greedy."""
    sample_score: dict[str, float]
    """The environment's graded score, sampled."""
    greedy_score: dict[str, float]

    def means(self) -> dict[str, float]:
        """Return the means over tasks, sampled under the outcome's own name."""
        named = {
            "success": self.sample, "score": self.sample_score,
            "greedy": self.greedy, "greedy_score": self.greedy_score,
        }  # fmt: skip
        return {name: fmean(per_task.values()) for name, per_task in named.items()}

    def as_json(self) -> dict[str, object]:
        """All means with their 95 % intervals over tasks."""
        found = {name: _json(mean_interval(list(x.values()))) for name, x in asdict(self).items()}
        return {**found, "tasks": len(self.sample)}


def measure_policy(
    policy: HFPolicy,
    tasks: Sequence[Task],
    setting: EpisodeSetting,
    *,
    samples: int,
    wave_size: int,
    seed: int,
    processes: Processes,
) -> TaskResults:
    """Run every task ``samples`` times at the policy's temperature, and once greedily.

    Failed episodes count as failures with score 0: nothing is known of them but that they did not succeed.

    Raises:
        EpisodesFailedError: if none worked: a dead environment must not look like a policy that collapsed.
    """
    jobs = [(task, sample) for task in tasks for sample in range(samples)]
    sampled = run_distributed(jobs, policy, setting, wave_size=wave_size, seed=seed, processes=processes)
    cold = policy.at_temperature(0.0)
    greedy = run_distributed(
        [(task, 0) for task in tasks], cold, setting, wave_size=wave_size, seed=seed, processes=processes
    )
    report_failures("measured episodes", [*sampled, *greedy])
    return TaskResults(
        sample=_per_task(sampled, "success"),
        greedy=_per_task(greedy, "success"),
        sample_score=_per_task(sampled, "score"),
        greedy_score=_per_task(greedy, "score"),
    )


def paired_differences(before: TaskResults, after: TaskResults) -> dict[str, object]:
    """Return the differences of the means with paired 95 % intervals over tasks."""
    old = asdict(before)
    return {
        name: _json(paired_interval(list(new.values()), list(old[name].values())))
        for name, new in asdict(after).items()
    }


def run_distributed(
    jobs: Sequence[tuple[Task, int]],
    policy: HFPolicy,
    setting: EpisodeSetting,
    *,
    wave_size: int,
    seed: int,
    processes: Processes,
) -> list[Trajectory]:
    """Run episodes in waves, shared out over the processes; all of them get all trajectories, in order.

    Waves are smaller than ``wave_size`` where some processes would have none.
    """
    size = max(1, min(wave_size, math.ceil(len(jobs) / processes.count)))
    waves = [list(jobs[start : start + size]) for start in range(0, len(jobs), size)]
    own = [rollout(wave, policy, setting, seed) for wave in processes.share(waves)]
    policy.clear()
    return [trajectory for wave in processes.gather(own) for trajectory in wave]


def _per_task(trajectories: Sequence[Trajectory], outcome: str) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for t in trajectories:
        reached = 0.0 if has_failed(t) else t.outcome.value(outcome)
        found.setdefault(t.task.id, []).append(reached)
    return {task: sum(outcomes) / len(outcomes) for task, outcomes in found.items()}


def _json(interval: Interval) -> dict[str, float]:
    return {name: round(value, 4) for name, value in interval._asdict().items()}
