"""Trajectories → Monte-Carlo labels: the value of each state, estimated by n fresh rollouts.

The labels of a step-value model (PVM): without a model's bias, and at the price of n
rollouts a state. Two label files are made of the same rollouts:

    labels.jsonl         soft: the share of successful rollouts
    labels_hard.jsonl    hard (Math-Shepherd): 1 where any rollout succeeded, else 0

A state that several trajectories share (all rollouts of a task begin alike) is
estimated once. After the last action the label is the outcome.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from rlprm.data.failures import with_outcome
from rlprm.data.label_files import LABELS, write_labels
from rlprm.data.shards import Shards
from rlprm.data.store import TrajectoryStore
from rlprm.models.hub.identity import model_files
from rlprm.models.hub.options import with_loading_options
from rlprm.policies.base import Policy
from rlprm.policies.openai.costs import recording_costs
from rlprm.rollouts.monte_carlo import Estimate, estimate, replay, state_key, state_seed
from rlprm.runtime.processes import SINGLE_PROCESS, Processes, start_processes
from rlprm.runtime.provenance import warn_of_policy
from rlprm.runtime.record import is_finished, recorded
from rlprm.runtime.settings import own_settings
from rlprm.stages.settings import EstimateConfig
from rlprm.types import StepLabels, Trajectory

log = logging.getLogger(__name__)
HARD_LABELS = "labels_hard.jsonl"


@dataclass(frozen=True)
class Prefix:
    """The state of a trajectory before one of its actions."""

    trajectory: Trajectory
    turn: int
    """Actions taken before."""

    @property
    def key(self) -> int:
        """Equal for equal states."""
        start = self.trajectory.steps[self.turn].start
        return state_key(self.trajectory.task, self.trajectory.token_ids[:start])


class EstimateStore(Shards):
    """A folder of Monte-Carlo estimates, one row a state."""

    HOLDS = "estimates"

    def write(self, wave: int, prefixes: Sequence[Prefix], estimates: Sequence[Estimate]) -> None:
        """Store one wave of rollouts, atomically."""
        self.write_rows(wave, (_to_row(p, e) for p, e in zip(prefixes, estimates, strict=True)))

    def read(self) -> list[Estimate]:
        """Read all estimates, in order.

        Raises:
            DataError: if there are none, or a line is damaged; names shard and line.
        """
        return self.read_rows(_from_row)


@with_loading_options
def run(config: EstimateConfig) -> None:
    """Estimate and label; waves of rollouts that are already there are kept.

    Several processes share the waves; the first one labels when all are there.

    Raises:
        ArtifactError: if policy or trajectories are missing.
        DataError: if there is nothing to label, or the trajectories cannot be replayed.
        MismatchError: if the trajectories were collected in another setting.
    """
    store = TrajectoryStore.open(config.trajectories)
    revision = config.policy_revision()
    identity = {
        **own_settings(config),
        "revision": revision,
        **model_files(policy=config.policy_folder()),
        "data": dict(store.meta),
        **config.environment_sources(),
    }
    if is_finished(config.output_dir, "estimate", identity):
        log.info("%s holds the estimates of these settings; reusing them", config.output_dir)
        return
    config.require_setting_of(store)
    warn_of_policy(config)
    if store.meta.get("policy") != revision:
        log.warning(
            "the rollouts are of policy %s, the trajectories of %s", revision, store.meta.get("policy")
        )
    if store.meta.get("temperature") != config.temperature:
        log.warning(
            "the rollouts are at temperature %s, the trajectories at %s: labels of another policy",
            config.temperature, store.meta.get("temperature"),
        )  # fmt: skip
    trajectories = select(store.read_of(config.environment), config.num_tasks, config.samples_per_task)
    processes = start_processes()
    with recorded(config.output_dir, "estimate", identity) as results:
        folder = EstimateStore.create(config.output_dir, identity)
        policy = config.load_policy()
        with recording_costs(policy, config.output_dir, processes, results):
            found = estimate_states(trajectories, policy, config, folder, processes)
        if not processes.is_main:
            return
        results.update(
            trajectories=len(trajectories), states=len(found),
            rollouts=sum(e.rollouts for e in found.values()),
            sampled_tokens=sum(e.sampled_tokens for e in found.values()),
            env_steps=sum(e.env_steps for e in found.values()),
            collected_tokens=sum(t.action_tokens for t in trajectories),
        )  # fmt: skip
        for name, hard in ((LABELS, False), (HARD_LABELS, True)):
            write_labels(
                Path(config.output_dir) / name,
                trajectories,
                [monte_carlo_labels(t, found, outcome=config.outcome, hard=hard) for t in trajectories],
                label_estimator="monte_carlo",
                label_estimator_kwargs={
                    "rollouts": config.rollouts,
                    "hard": hard,
                    "temperature": config.temperature,
                },
                outcome="success" if hard else config.outcome,
                policy=revision,
                env_steps=results["env_steps"],
                data=dict(store.meta),
                costs=dict(results),
            )


def select(
    trajectories: Sequence[Trajectory], num_tasks: int | None, samples_per_task: int | None
) -> list[Trajectory]:
    """Return the usable trajectories of the first tasks, and of each the first samples.

    Raises:
        DataError: if none is usable (all failed, or have no step).
    """
    rows: dict[str, list[Trajectory]] = {}
    for trajectory in trajectories:
        rows.setdefault(trajectory.task.id, []).append(trajectory)
    chosen: list[Trajectory] = []
    for row in list(rows.values())[:num_tasks]:
        chosen += sorted(row, key=lambda t: t.sample)[:samples_per_task]
    return with_outcome(chosen)


def prefixes(trajectories: Sequence[Trajectory]) -> list[Prefix]:
    """Return every state before an action, each once: by the first trajectory that reached it."""
    found: dict[int, Prefix] = {}
    for trajectory in trajectories:
        for turn in range(len(trajectory.steps)):
            prefix = Prefix(trajectory, turn)
            found.setdefault(prefix.key, prefix)
    return list(found.values())


def estimate_states(
    trajectories: Sequence[Trajectory],
    policy: Policy,
    config: EstimateConfig,
    store: EstimateStore,
    processes: Processes = SINGLE_PROCESS,
) -> dict[int, Estimate]:
    """Estimate every state of the trajectories, wave by wave.

    A state's estimate is a function of the seed, its task and its tokens, not of the
    trajectories or the size of the wave. Several processes, each of which takes its share of the
    waves, therefore come to the same estimates; all of them return when all waves are there.

    Returns:
        Key of a prefix → its estimate.
    """
    states = prefixes(trajectories)
    size = max(1, config.wave_size // config.rollouts)
    portions = [states[start : start + size] for start in range(0, len(states), size)]
    own = processes.share(list(enumerate(portions)))
    total = sum(len(portion) for _, portion in own)
    with tqdm(total=total, desc="states", unit="state", disable=not processes.is_main) as bar:
        for number, portion in own:
            if not store.has(number):
                store.write(number, portion, _estimate(portion, policy, config))
            bar.update(len(portion))
    processes.wait()
    return {prefix.key: found for prefix, found in zip(states, store.read(), strict=True)}


def monte_carlo_labels(
    trajectory: Trajectory, estimates: Mapping[int, Estimate], *, outcome: str = "success", hard: bool = False
) -> StepLabels:
    """Return targets of ``v_0 ... v_T``: an estimate for each state, the outcome at the end.

    Args:
        trajectory: T steps.
        estimates: of every state before an action.
        outcome: ``"success"`` or ``"score"``; hard labels are always of success.
        hard: 1 where any rollout succeeded, else 0.
    """
    found = [estimates[Prefix(trajectory, turn).key] for turn in range(len(trajectory.steps))]
    success = float(trajectory.outcome.success)
    if hard:
        promise = [*(float(e.success > 0) for e in found), success]
    elif outcome == "success":
        promise = [*(e.success for e in found), success]
    else:
        promise = [*(e.score for e in found), trajectory.outcome.score]
    return StepLabels(promise=tuple(promise), progress=(), weight=(1.0,) * len(promise))


def _estimate(portion: Sequence[Prefix], policy: Policy, config: EstimateConfig) -> list[Estimate]:
    states = []
    for _, group in groupby(portion, key=lambda prefix: id(prefix.trajectory)):
        of_trajectory = list(group)
        replayed = replay(of_trajectory[0].trajectory, config.episode_setting(), policy)
        states += [replayed[prefix.turn] for prefix in of_trajectory]
    seeded = [state.fork(state_seed(config.seed, state)) for state in states]
    return estimate(seeded, policy, config.rollouts)


_FOUND = {"success": float, "score": float, "rollouts": int, "sampled_tokens": int, "env_steps": int}


def _to_row(prefix: Prefix, found: Estimate) -> dict[str, Any]:
    trajectory = prefix.trajectory
    return {
        "task_id": trajectory.task.id,
        "sample": trajectory.sample,
        "turn": prefix.turn,
        "actions": [step.action for step in trajectory.steps[: prefix.turn]],
        **{name: getattr(found, name) for name in _FOUND},
    }


def _from_row(row: Mapping[str, Any]) -> Estimate:
    row = {"sampled_tokens": row.get("policy_tokens"), **row}  # their name in 0.1.0
    return Estimate(**{name: kind(row[name]) for name, kind in _FOUND.items()})
