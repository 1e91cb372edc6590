"""Monte-Carlo estimates of promise: fork the environment at a step, finish the episode often, take the mean.

Unbiased, and dear: with n rollouts for each of T steps a trajectory costs n·T others.
They are the labels of a step-value model (PVM) and the yardstick for any scorer.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rlprm.data.failures import has_failed
from rlprm.data.rerender import split_turns
from rlprm.errors import ConfigError, DataError, MismatchError
from rlprm.policies.base import Completion, Policy, action_seed
from rlprm.rollouts.episode import Episode, start_episode
from rlprm.rollouts.waves import finish_episodes
from rlprm.types import EpisodeSetting, Message, Step, Task, Trajectory


@dataclass(frozen=True)
class Estimate:
    """The mean outcome of rollouts from one state, and what they cost."""

    success: float
    """Share of successful rollouts; the episode's own success where it was over already."""
    score: float
    """Mean of the environment's own score."""
    rollouts: int
    """Number of rollouts that did not fail; 0 where the episode was over already."""
    sampled_tokens: int
    """Tokens that the policy sampled in the rollouts."""
    env_steps: int


def replay(trajectory: Trajectory, setting: EpisodeSetting, policy: Policy) -> list[Episode]:
    """Rebuild the states of a stored trajectory: ``[after 0 actions, after 1, ..., after T]``.

    The environment is taken through the same actions, and the conversation
    through the same token ids.

    Raises:
        MismatchError: if the policy has another chat template or vocabulary.
        DataError: if it answers differently than it did then (another version of
            the environment, or one that is not deterministic), or fails.
    """
    if trajectory.template != policy.renderer.template_hash:
        raise MismatchError(
            f"the trajectory of task {trajectory.task.id!r} was rendered with template "
            f"{trajectory.template}, the policy has {policy.renderer.template_hash}"
        )
    what = f"sample {trajectory.sample} of task {trajectory.task.id!r} cannot be replayed"
    episode = start_episode(trajectory.task, trajectory.sample, trajectory.seed, setting, policy)
    if isinstance(episode, Trajectory):
        raise DataError(f"{what}: {episode.error}")
    states = [episode.fork()]
    said: Sequence[Message | None] = [None] * len(trajectory.steps)
    if not trajectory.exact:
        said = [message for _, message in split_turns(trajectory)[1]]
    for step, message in zip(trajectory.steps, said, strict=True):
        episode.advance(_sampled(trajectory, step, message))
        states.append(episode.fork())
    over = next((state for state in states[:-1] if state.stop is not None), None)
    if over is not None:
        ended = f"now it ends after {over.turn} of {len(trajectory.steps)} actions ({over.stop})"
        advice = "take the context_length and max_new_tokens it was collected with"
        raise DataError(f"{what}: {over.error or f'{ended}; {advice}'}")
    again = episode.trajectory()
    if (again.token_ids, again.stop) != (trajectory.token_ids, trajectory.stop):
        cause = "its environment answers differently now, or the setting is not the one it was collected in"
        raise DataError(f"{what}: {again.error or cause}")
    return states


def estimate(states: Sequence[Episode], policy: Policy, rollouts: int) -> list[Estimate]:
    """Estimate the promise of several states with fresh rollouts, all of them in one batch.

    Args:
        states: episodes at any turn, left as they are; the promise of an episode after
            its action is that of the state the action led to.
        policy: finishes the episodes.
        rollouts: n, per state.

    Returns:
        One estimate per state, in order. A state's random numbers are a function of its
        episode's seed and its turn, not of the states beside it.

    Raises:
        ConfigError: for fewer than one rollout.
        DataError: if every rollout of a state failed.
    """
    if rollouts < 1:
        raise ConfigError(f"rollouts: got {rollouts}, allowed: 1 or more")
    branches = [
        [] if state.stop is not None else [state.fork(_branch_seed(state, i)) for i in range(rollouts)]
        for state in states
    ]
    finish_episodes([episode for row in branches for episode in row], policy)
    return [_summarize(state, row) for state, row in zip(states, branches, strict=True)]


def state_key(task: Task, token_ids: Sequence[int]) -> int:
    """Return a number of 64 bits that stands for a state: the task, and the tokens before its next action."""
    words = f"{task.id}\n".encode() + array("I", token_ids).tobytes()
    return int.from_bytes(hashlib.sha256(words).digest()[:8], "big")


def state_seed(run_seed: int, state: Episode) -> int:
    """Return a seed for what is tried in a state: a function of the run, the task and the tokens so far.

    States that are the same get the same seed, by whichever trajectory they were reached.
    """
    key = state_key(state.task, state.conversation.token_ids)
    sequence = np.random.SeedSequence(run_seed, spawn_key=(key,))
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def waves(states: Iterable[Episode], rollouts: int, wave_size: int) -> Iterator[list[Episode]]:
    """Portion states out so that the rollouts of each portion run side by side.

    Args:
        states: those that are over need no rollouts, and take no room.
        rollouts: n, per state.
        wave_size: episodes of a portion; one state's rollouts are never parted.
    """
    wave: list[Episode] = []
    room = wave_size
    for state in states:
        needed = rollouts if state.stop is None else 0
        if wave and needed > room:
            yield wave
            wave, room = [], wave_size
        wave.append(state)
        room -= needed
    if wave:
        yield wave


def _summarize(state: Episode, branches: Sequence[Episode]) -> Estimate:
    if not branches:
        outcome = state.trajectory().outcome
        return Estimate(float(outcome.success), outcome.score, 0, 0, 0)
    before = state.trajectory()
    finished = [branch.trajectory() for branch in branches]
    usable = [t.outcome for t in finished if not has_failed(t)]
    if not usable:
        raise DataError(
            f"every rollout from turn {state.turn} of task {state.task.id!r} failed: {finished[0].error}"
        )
    return Estimate(
        success=sum(outcome.success for outcome in usable) / len(usable),
        score=sum(outcome.score for outcome in usable) / len(usable),
        rollouts=len(usable),
        sampled_tokens=sum(t.action_tokens - before.action_tokens for t in finished),
        env_steps=sum(len(t.steps) - len(before.steps) for t in finished),
    )


def _branch_seed(state: Episode, number: int) -> int:
    # Branch 0 belongs to the episode itself: its own future must not be one of the estimates.
    return action_seed(state.seed, state.turn, number + 1)


def _sampled(trajectory: Trajectory, step: Step, said: Message | None) -> Completion:
    """Return a step's action as the policy gave it: without a closing token that was forced.

    Args:
        trajectory: that has the step.
        step: its tokens.
        said: its message, if the tokens were made from text.
    """
    place = slice(step.start, trajectory.message_end(step))
    return Completion(
        trajectory.token_ids[place],
        trajectory.logprobs[place],
        mask=trajectory.action_mask[place],
        said=said,
    )
