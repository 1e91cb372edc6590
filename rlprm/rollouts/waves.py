"""A wave of episodes, from its tasks to its trajectories.

A policy in this process acts for all running episodes at once, turn by turn. A policy that keeps keys and
values bounds how many these are, and the others come after them. If the environments wait on a
network, the wave is split into two halves. The policy then acts for one while the environments of the other
answer. Episodes of a policy on a server go on one by one (:mod:`rlprm.rollouts.free_running`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import cast

from rlprm.data.formats import Parsed
from rlprm.policies.base import AsyncPolicy, BoundedPolicy, Policy
from rlprm.rollouts.acting import act
from rlprm.rollouts.episode import Episode, advance_all, episode_seed, start_episodes
from rlprm.rollouts.free_running import FreePolicy, episodes_as_they_end, finish_freely
from rlprm.rollouts.threads import concurrency, shared_threads
from rlprm.types import EpisodeSetting, Task, Trajectory, Turn

__all__ = ["finish_episodes", "free_policy", "rollout"]


def rollout(
    jobs: Sequence[tuple[Task, int]],
    policy: Policy,
    setting: EpisodeSetting,
    run_seed: int = 0,
    *,
    in_flight: int | None = None,
    on_end: Callable[[int], object] | None = None,
) -> list[Trajectory]:
    """Run one wave: an episode for each (task, sample number), side by side.

    Args:
        jobs: the episodes.
        policy: acts.
        setting: how they are run.
        run_seed: with task and sample number, determines an episode.
        in_flight: most episodes at one time if they do not wait for each other; all if None.
        on_end: called with the number of episodes that have just ended.

    If an environment or the policy fails, its episode is an ``ERROR`` trajectory. Wrong settings raise an
    error.
    """
    seeded = [(task, sample, episode_seed(run_seed, task, sample)) for task, sample in jobs]
    if free := free_policy(policy):
        done = {}
        for number, ended in episodes_as_they_end(seeded, free, setting, in_flight=in_flight or len(seeded)):
            done[number] = ended
            if on_end is not None:
                on_end(1)
        return [done[number] for number in range(len(seeded))]
    episodes = start_episodes(seeded, setting, policy)
    running = len(episodes)

    def count(left: int) -> None:
        nonlocal running
        if on_end is not None and left < running:
            on_end(running - left)
        running = left

    begun = [e for e in episodes if isinstance(e, Episode)]
    count(len(begun))
    finish_episodes(begun, policy, count)
    return [e if isinstance(e, Trajectory) else e.trajectory() for e in episodes]


def finish_episodes(
    episodes: Sequence[Episode], policy: Policy, on_turn: Callable[[int], None] | None = None
) -> None:
    """Advance episodes until each has stopped, as many side by side as the policy allows.

    Args:
        episodes: in any state; finished ones stay as they are.
        policy: acts for all of them.
        on_turn: called with the number of episodes still running: after each turn of all, or after each
            episode if they do not wait for each other.
    """
    running = [episode for episode in episodes if episode.stop is None]
    if free := free_policy(policy):
        for left, _ in zip(
            reversed(range(len(running))),
            finish_freely(running, free, in_flight=max(1, len(running))),
            strict=True,
        ):
            if on_turn is not None:
                on_turn(left)
        return
    size = policy.side_by_side if isinstance(policy, BoundedPolicy) else max(1, len(running))
    for start in range(0, len(running), size):
        later = max(0, len(running) - start - size)
        on_own = None if on_turn is None else partial(_with_later, on_turn, later)
        _finish_together(running[start : start + size], policy, on_own)


def _with_later(on_turn: Callable[[int], None], later: int, left: int) -> None:
    on_turn(left + later)


def _finish_together(running: list[Episode], policy: Policy, on_turn: Callable[[int], None] | None) -> None:
    """Advance episodes side by side."""
    if len(running) > 1 and concurrency(episode.task for episode in running) > 1:
        _finish_halves(running, policy, on_turn)
        return
    while running:
        advance_all(running, act(policy, [e.conversation for e in running], [e.next_seed() for e in running]))
        running = [episode for episode in running if episode.stop is None]
        if on_turn is not None:
            on_turn(len(running))


def _finish_halves(running: Sequence[Episode], policy: Policy, on_turn: Callable[[int], None] | None) -> None:
    """Advance two halves of a wave in turn; which episode is in which half does not depend on time."""
    threads = shared_threads(concurrency(episode.task for episode in running))
    middle = (len(running) + 1) // 2  # samples of one task stay together, and share their prompt
    halves = [list(running[:middle]), list(running[middle:])]
    policies = [policy, _with_own_cache(policy)]
    asked: list[list[tuple[Episode, Parsed, Future[Turn | Exception]]]] = [[], []]
    while any(halves):
        for number, actor in enumerate(policies):
            for episode, parsed, answer in asked[number]:
                episode.append_answer(parsed, answer.result())
            half = halves[number] = [episode for episode in halves[number] if episode.stop is None]
            if not half:
                asked[number] = []
                continue
            done = act(actor, [e.conversation for e in half], [e.next_seed() for e in half])
            said = [(e, e.append_action(completion)) for e, completion in zip(half, done, strict=True)]
            asked[number] = [(e, parsed, threads.submit(e.query_environment, parsed)) for e, parsed in said]
        if on_turn is not None:
            on_turn(sum(map(len, halves)))


def _with_own_cache(policy: Policy) -> Policy:
    """Return the same policy, which keeps the keys and values of other conversations."""
    copied = getattr(policy, "at_temperature", None)  # a policy that keeps nothing has no need of one
    own: Policy = policy if copied is None else copied(policy.temperature)
    return own


def free_policy(policy: Policy) -> FreePolicy | None:
    """Return the policy if its episodes need not wait for each other."""
    return cast(FreePolicy, policy) if isinstance(policy, AsyncPolicy) else None
