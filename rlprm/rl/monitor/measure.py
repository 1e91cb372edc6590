"""Success of a policy, task by task, so that two policies are compared on the same tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

from rlprm import envs
from rlprm.data.failures import has_failed, report_failures
from rlprm.functional.statistics.bootstrap import Interval, mean_interval, paired_interval
from rlprm.rl.config import RLConfig
from rlprm.rl.sampler import Sampler
from rlprm.runtime.processes import collective
from rlprm.types import EpisodeSetting, Split, Task, Trajectory

__all__ = ["TaskResults", "measure", "measure_on", "measure_saved", "paired_differences"]


@dataclass(frozen=True)
class TaskResults:
    """The outcomes of each task: a mean over its sampled episodes, and the greedy episode."""

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
        """Return all means with their 95 % intervals over tasks."""
        intervals = {name: _json(mean_interval(list(x.values()))) for name, x in asdict(self).items()}
        return {**intervals, "tasks": len(self.sample)}


@collective
def measure_saved(
    sampler: Sampler, model: str, config: RLConfig, split: Split, count: int, samples: int
) -> TaskResults:
    """Measure a saved policy; the policies before and after RL load in one dtype, so both compute alike.

    Args:
        sampler: acts.
        model: folder or hub id of the policy.
        config: of the run.
        split: of the tasks.
        count: number of tasks, the first of the split.
        samples: sampled episodes of each task.
    """
    with sampler.acting_as(model):
        return measure_on(sampler, config, split, count, samples)


@collective
def measure_on(sampler: Sampler, config: RLConfig, split: Split, count: int, samples: int) -> TaskResults:
    """Measure the policy as it is now on the first tasks of a split; see :func:`measure`."""
    tasks = envs.tasks(config.environment, split, 0, count, config.env_kwargs)
    return measure(sampler, tasks, config.episode_setting(), samples=samples)


@collective
def measure(sampler: Sampler, tasks: Sequence[Task], setting: EpisodeSetting, *, samples: int) -> TaskResults:
    """Run every task ``samples`` times at the policy's temperature, and once greedily.

    Failed episodes count as failures with score 0: all that is known of them is that they did not succeed.

    Raises:
        EpisodesFailedError: if none worked: a dead environment must not look like a policy that collapsed.
    """
    sampled = sampler.collect([(task, sample) for task in tasks for sample in range(samples)], setting)
    greedy = sampler.collect([(task, 0) for task in tasks], setting, greedy=True)
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


def _per_task(trajectories: Sequence[Trajectory], outcome: str) -> dict[str, float]:
    outcomes: dict[str, list[float]] = {}
    for t in trajectories:
        reached = 0.0 if has_failed(t) else t.outcome.value(outcome)
        outcomes.setdefault(t.task.id, []).append(reached)
    return {task: sum(values) / len(values) for task, values in outcomes.items()}


def _json(interval: Interval) -> dict[str, float]:
    return {name: round(value, 4) for name, value in interval._asdict().items()}
