"""Stored trajectories → states, several actions in each, and a Monte-Carlo estimate of what each is worth.

The yardstick for a reward model's finest duty: telling actions at one state
apart. Beam search and dense rewards live on it, and an AUC over trajectories
does not show it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from rlprm.data.failures import has_outcome
from rlprm.data.probes import ActionProbe, ProbedAction
from rlprm.data.store import TrajectoryStore
from rlprm.errors import DataError
from rlprm.models.hub.identity import model_files
from rlprm.models.hub.options import with_loading_options
from rlprm.policies.base import Completion, Policy, action_seed
from rlprm.policies.openai.costs import recording_costs
from rlprm.rollouts.acting import act
from rlprm.rollouts.episode import Episode
from rlprm.rollouts.monte_carlo import estimate, replay, state_key, state_seed, waves
from rlprm.runtime.processes import SINGLE_PROCESS, Processes, start_processes
from rlprm.runtime.provenance import episode_settings, warn_of_differences, warn_of_policy
from rlprm.runtime.record import is_finished, recorded
from rlprm.runtime.settings import own_settings
from rlprm.stages.settings import ProbeActionsConfig
from rlprm.types import EpisodeSetting, StopReason, Trajectory

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """An action taken in a state."""

    state: int
    child: Episode
    """The episode after the action."""
    frequency: int

    @property
    def key(self) -> tuple[int, int, int]:
        """Equal for the same action in the same state, found as often."""
        return _key(self.state, self.frequency, self.child.trajectory())


@dataclass
class Candidates:
    """The actions to estimate, and what it cost to find them."""

    found: list[Candidate] = field(default_factory=list)
    """State by state, the most frequent action first."""
    states: int = 0
    alike: int = 0
    """States passed over: fewer than two different actions were sampled there."""
    sampled_tokens: int = 0
    env_steps: int = 0


@with_loading_options
def run(config: ProbeActionsConfig) -> ActionProbe:
    """Probe states of stored trajectories; waves of rollouts that are already there are kept.

    Several processes share the waves; the first one records the run when all are there.

    Raises:
        ArtifactError: if policy or trajectories are missing.
        DataError: if no state has two different actions, or the trajectories cannot be replayed.
        MismatchError: if the trajectories were collected in another setting.
    """
    store = TrajectoryStore.open(config.trajectories)
    identity = {
        **own_settings(config),
        "revision": config.policy_revision(),
        **model_files(policy=config.policy_folder()),
        "data": dict(store.meta),
        **config.environment_sources(),
    }
    if is_finished(config.output_dir, "probe-actions", identity):
        log.info("%s holds the probe of these settings; reusing it", config.output_dir)
        return ActionProbe.open(config.output_dir)
    config.require_setting_of(store)
    warn_of_policy(config)
    # The states' tasks come with the trajectories: env_kwargs has no effect here.
    warn_of_differences(str(store.folder), store.meta, episode_settings(config), ("temperature",))
    trajectories = store.read_of(config.environment)
    processes = start_processes()
    with recorded(config.output_dir, "probe-actions", identity) as results:
        policy = config.load_policy()
        probe = ActionProbe.create(config.output_dir, {**identity, **config.estimates_meta(policy)})
        with recording_costs(policy, config.output_dir, processes, results):
            results.update(probe_actions(trajectories, policy, config, probe, processes))
    return probe


def probe_actions(
    trajectories: Sequence[Trajectory],
    policy: Policy,
    config: ProbeActionsConfig,
    probe: ActionProbe,
    processes: Processes = SINGLE_PROCESS,
) -> dict[str, Any]:
    """Choose states, try actions in them and estimate what these are worth, wave by wave.

    Several processes share the estimating, which is nearly all of the work. The first one finds the actions.

    Returns:
        Counts and costs.

    Raises:
        DataError: if no state has two different actions, the environment answers differently in another
            process, or other actions were found when the probe was begun.
    """
    candidates = _of_first_process(trajectories, policy, config, processes)
    if not candidates.found:
        raise DataError(
            f"none of {candidates.alike} states has two different actions among {config.samples_per_state}; "
            "raise temperature or samples_per_state, or take other trajectories"
        )
    if candidates.states < config.num_states:
        log.warning("only %d of %d states have two different actions", candidates.states, config.num_states)
    children = [candidate.child for candidate in candidates.found]
    remaining = iter(candidates.found)
    portions = [
        list(islice(remaining, len(wave))) for wave in waves(children, config.rollouts, config.wave_size)
    ]
    own = processes.share(list(enumerate(portions)))
    total = sum(len(portion) for _, portion in own)
    with tqdm(total=total, desc="actions", unit="action", disable=not processes.is_main) as bar:
        for number, portion in own:
            if not probe.has(number):
                probe.write(number, _estimate(portion, policy, config))
            elif [_key(a.state, a.frequency, a.trajectory) for a in probe.read_wave(number)] != [
                candidate.key for candidate in portion
            ]:
                raise DataError(
                    f"{probe.folder} was begun with other actions (another device or library may round "
                    "differently); choose another output_dir, delete this one, or give --overwrite"
                )
            bar.update(len(portion))
    processes.wait()
    estimated = [action for of_state in probe.read() for action in of_state]
    return {
        "states": candidates.states, "actions": len(estimated), "states_with_one_action": candidates.alike,
        "rollouts": sum(action.rollouts for action in estimated),
        "sampled_tokens": candidates.sampled_tokens + sum(action.sampled_tokens for action in estimated),
        "env_steps": candidates.env_steps + sum(action.env_steps for action in estimated),
    }  # fmt: skip


def choose_states(trajectories: Sequence[Trajectory], seed: int) -> Iterator[tuple[Trajectory, int]]:
    """Yield states as (trajectory, actions taken before), spread over the tasks.

    The tasks take turns in a random order; each gives another of its trajectories, at
    random, and of this a turn, each as likely as the others. A trajectory is used once, and a
    state that two trajectories share (all begin alike) once, too.
    """
    rows: dict[str, list[Trajectory]] = {}
    for trajectory in trajectories:
        if has_outcome(trajectory):
            rows.setdefault(trajectory.task.id, []).append(trajectory)
    generator = np.random.default_rng(seed)
    order = [list(rows.values())[i] for i in generator.permutation(len(rows))]
    for row in order:
        generator.shuffle(row)
    seen: set[int] = set()
    for depth in range(max(map(len, order), default=0)):
        for trajectory in (row[depth] for row in order if depth < len(row)):
            turn = int(generator.integers(len(trajectory.steps)))
            state = state_key(trajectory.task, trajectory.token_ids[: trajectory.steps[turn].start])
            if state not in seen:
                seen.add(state)
                yield trajectory, turn


def find_candidates(
    trajectories: Sequence[Trajectory], policy: Policy, config: ProbeActionsConfig
) -> Candidates:
    """Sample actions in one state after another until enough states have two different ones."""
    setting, samples = config.episode_setting(), config.samples_per_state
    chosen = choose_states(trajectories, config.seed)
    result = Candidates()
    with tqdm(total=config.num_states, desc="states", unit="state") as bar:
        while drawn := list(islice(chosen, max(1, config.wave_size // samples))):
            states = [_state(trajectory, turn, setting, policy, config.seed) for trajectory, turn in drawn]
            sampled = act(
                policy,
                [state.conversation for state in states for _ in range(samples)],
                [state.next_seed(branch) for state in states for branch in range(samples)],
            )
            result.sampled_tokens += sum(len(completion.ids) for completion in sampled)
            for number, state in enumerate(states):
                of_state = sampled[number * samples : (number + 1) * samples]
                children = distinct_children(state, of_state, config.actions_per_state)
                result.env_steps += len(children)
                if len(children) < 2:
                    result.alike += 1
                    continue
                result.found += [Candidate(result.states, child, count) for child, count in children]
                result.states += 1
                bar.update()
                if result.states == config.num_states:
                    return result
    return result


def distinct_children(
    state: Episode, completions: Sequence[Completion], limit: int
) -> list[tuple[Episode, int]]:
    """Carry out the most frequent of the sampled actions, equal ones once.

    Returns:
        (episode after the action, how often it was sampled), the most frequent first, equally
        frequent ones in the order of sampling; an action whose episode failed is left out.
        Each has a seed of its own: estimates of actions of one state are independent.
    """
    groups: dict[tuple[str, str | None], list[Completion]] = {}
    for completion in completions:
        parsed = state.read_action(completion)
        groups.setdefault((parsed.action, parsed.refusal), []).append(completion)
    children: list[tuple[Episode, int]] = []
    for number, group in enumerate(sorted(groups.values(), key=len, reverse=True)):
        child = state.fork(action_seed(state.seed, state.turn, len(completions) + number))
        child.advance(group[0])
        if child.stop is not StopReason.ERROR:
            children.append((child, len(group)))
        if len(children) == limit:
            break
    return children


def _of_first_process(
    trajectories: Sequence[Trajectory], policy: Policy, config: ProbeActionsConfig, processes: Processes
) -> Candidates:
    """Find candidates in the first process, and rebuild them in the others by replay.

    Each process might find others: a server in bfloat16 does not repeat itself, and devices round
    differently.

    Raises:
        DataError: if the environment answers differently in another process.
    """
    own = find_candidates(trajectories, policy, config) if processes.is_main else Candidates()
    rows = [(c.state, c.child.trajectory(), c.frequency) for c in own.found]
    counts, rows = processes.gather_all((replace(own, found=[]), rows))[0]
    if processes.is_main:
        return own
    setting = config.episode_setting()
    found = [Candidate(state, replay(row, setting, policy)[-1], count) for state, row, count in rows]
    return replace(counts, found=found)


def _key(state: int, frequency: int, trajectory: Trajectory) -> tuple[int, int, int]:
    return state, frequency, state_key(trajectory.task, trajectory.token_ids)


def _state(trajectory: Trajectory, turn: int, setting: EpisodeSetting, policy: Policy, seed: int) -> Episode:
    state = replay(trajectory, setting, policy)[turn]
    return state.fork(state_seed(seed, state))


def _estimate(
    candidates: Sequence[Candidate], policy: Policy, config: ProbeActionsConfig
) -> list[ProbedAction]:
    estimates = estimate([candidate.child for candidate in candidates], policy, config.rollouts)
    return [
        ProbedAction(
            state=candidate.state,
            trajectory=candidate.child.trajectory(),
            frequency=candidate.frequency,
            samples=config.samples_per_state,
            success=found.success,
            score=found.score,
            rollouts=found.rollouts,
            sampled_tokens=found.sampled_tokens,
            env_steps=found.env_steps,
        )
        for candidate, found in zip(candidates, estimates, strict=True)
    ]
