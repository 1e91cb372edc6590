"""Success of a policy, task by task, so that two policies are compared on the same tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean, stdev

from rlprm import envs
from rlprm.data.failures import has_failed, report_failures
from rlprm.data.message_counts import COUNTED, message_shares
from rlprm.functional.statistics.bootstrap import Interval, mean_interval, paired_interval
from rlprm.rl.config import RLConfig
from rlprm.rl.samplers.base import Sampler
from rlprm.runtime.processes import collective
from rlprm.types import End, EpisodeSetting, Split, StopReason, Task, Trajectory

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
    sample_declared: dict[str, float] = field(default_factory=dict)
    """Share of episodes that the agent itself ended, sampled."""
    greedy_declared: dict[str, float] = field(default_factory=dict)
    sample_declared_success: dict[str, float] = field(default_factory=dict)
    """Share of episodes that are declared and successful, sampled; empty unless ``end: declared``."""
    greedy_declared_success: dict[str, float] = field(default_factory=dict)
    sample_invalid_actions: dict[str, float] = field(default_factory=dict)
    """Share of the task's actions that the environment could not carry out, sampled; 0 without an action."""
    greedy_invalid_actions: dict[str, float] = field(default_factory=dict)
    messages: dict[str, dict[str, float]] = field(default_factory=dict)
    """Shares of the task's messages: ``sample_`` or ``greedy_``, and a name of ``message_counts.COUNTED``."""

    def measured(self) -> dict[str, dict[str, float]]:
        """Return what was measured, by name."""
        fields = asdict(self)
        messages = fields.pop("messages")
        return {name: per_task for name, per_task in {**fields, **messages}.items() if per_task}

    def means(self) -> dict[str, float]:
        """Return the means over tasks, sampled under the outcome's own name."""
        means = {name: fmean(per_task.values()) for name, per_task in self.measured().items()}
        return {
            "success": means.pop("sample"),
            **{name.removeprefix("sample_"): mean for name, mean in means.items()},
        }

    def standard_error(self, outcome: str) -> float:
        """Return the standard error over tasks of the mean of ``success`` or ``score``, sampled.

        It is 0 for a single task, which has no spread.
        """
        per_task = list((self.sample if outcome == "success" else self.sample_score).values())
        return stdev(per_task) / math.sqrt(len(per_task)) if len(per_task) > 1 else 0.0

    def as_json(self) -> dict[str, object]:
        """Return all means with their 95 % intervals over tasks."""
        intervals = {name: _json(mean_interval(list(x.values()))) for name, x in self.measured().items()}
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
    can_declare = setting.end is End.DECLARED
    limit = sampler.policy.max_new_tokens
    return TaskResults(
        sample=_per_task(sampled, "success"),
        greedy=_per_task(greedy, "success"),
        sample_score=_per_task(sampled, "score"),
        greedy_score=_per_task(greedy, "score"),
        sample_declared=_per_task(sampled, "declared"),
        greedy_declared=_per_task(greedy, "declared"),
        sample_declared_success=_per_task(sampled, "declared_success") if can_declare else {},
        greedy_declared_success=_per_task(greedy, "declared_success") if can_declare else {},
        sample_invalid_actions=_invalid_actions(sampled),
        greedy_invalid_actions=_invalid_actions(greedy),
        messages={**_messages("sample", sampled, limit), **_messages("greedy", greedy, limit)},
    )


def paired_differences(before: TaskResults, after: TaskResults) -> dict[str, object]:
    """Return the differences of the means with paired 95 % intervals over tasks."""
    old = before.measured()
    return {
        name: _json(paired_interval(list(new.values()), list(old[name].values())))
        for name, new in after.measured().items()
    }


def _per_task(trajectories: Sequence[Trajectory], measure: str) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for t in trajectories:
        values.setdefault(t.task.id, []).append(0.0 if has_failed(t) else _value(t, measure))
    return {task: sum(of_task) / len(of_task) for task, of_task in values.items()}


def _value(trajectory: Trajectory, measure: str) -> float:
    declared = trajectory.stop is StopReason.DECLARED
    if measure == "declared":
        return float(declared)
    if measure == "declared_success":
        return float(declared and trajectory.outcome.success)
    return trajectory.outcome.value(measure)


def _invalid_actions(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    valid: dict[str, list[bool]] = {}
    for t in trajectories:
        valid.setdefault(t.task.id, []).extend(step.valid for step in t.steps)
    return {task: 1 - sum(of_task) / len(of_task) if of_task else 0.0 for task, of_task in valid.items()}


def _messages(how: str, trajectories: Sequence[Trajectory], limit: int) -> dict[str, dict[str, float]]:
    of_task: dict[str, list[Trajectory]] = {}
    for t in trajectories:
        of_task.setdefault(t.task.id, []).append(t)
    shares = {task: message_shares(own, limit) for task, own in of_task.items()}
    return {f"{how}_{name}": {task: found[name] for task, found in shares.items()} for name in COUNTED}


def _json(interval: Interval) -> dict[str, float]:
    return {name: round(value, 4) for name, value in interval._asdict().items()}
