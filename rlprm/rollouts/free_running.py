"""Episodes that do not wait for each other: a coroutine an episode, environments in threads.

In lock step a turn waits for the longest message of a wave, and the wave for its longest episode. A policy on
a server batches whatever requests are there, so that each episode may go on as soon as its environment has
answered. An episode is a function of its task, its sample number and its seed in both ways.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Executor
from typing import Any, Protocol, TypeVar

from rlprm.errors import RlprmError
from rlprm.policies.base import AsyncPolicy, Completion, Policy
from rlprm.rollouts.acting import cause_of, failed
from rlprm.rollouts.episode import Episode, start_episode
from rlprm.rollouts.threads import Threads, concurrency
from rlprm.types import EpisodeSetting, Task, Trajectory

__all__ = ["FreePolicy", "episodes_as_they_end", "finish_freely"]

_T = TypeVar("_T")
_R = TypeVar("_R")


class FreePolicy(Policy, AsyncPolicy, Protocol):
    """A policy that acts in single conversations, too."""


def episodes_as_they_end(
    jobs: Sequence[tuple[Task, int, int]], policy: FreePolicy, setting: EpisodeSetting, *, in_flight: int
) -> Iterator[tuple[int, Trajectory]]:
    """Run an episode for each (task, sample number, seed).

    Args:
        jobs: begun in this order.
        policy: acts.
        setting: how episodes are run.
        in_flight: most episodes at one time.

    Yields:
        Number of a job and its trajectory, in the order in which they end.

    Raises:
        RlprmError: if the settings are wrong, or the policy cannot go on.
    """

    async def run(number: int, threads: Executor) -> tuple[int, Trajectory]:
        started = await _in(threads, start_episode, *jobs[number], setting, policy)
        if isinstance(started, Trajectory):
            return number, started
        await _finish(started, policy, threads)
        return number, await _in(threads, started.trajectory)

    return _as_they_end(range(len(jobs)), run, policy, [task for task, _, _ in jobs], in_flight)


def finish_freely(episodes: Sequence[Episode], policy: FreePolicy, *, in_flight: int) -> Iterator[Episode]:
    """Advance each episode until it has stopped, and yield it then; finished ones stay as they are."""
    running = [episode for episode in episodes if episode.stop is None]

    async def run(episode: Episode, threads: Executor) -> Episode:
        await _finish(episode, policy, threads)
        return episode

    return _as_they_end(running, run, policy, [episode.task for episode in running], in_flight)


async def _finish(episode: Episode, policy: FreePolicy, threads: Executor) -> None:
    while episode.stop is None:
        parsed = episode.append_action(await _act(policy, episode))
        answer = await _in(threads, episode.query_environment, parsed)
        episode.append_answer(parsed, answer)


async def _act(policy: FreePolicy, episode: Episode) -> Completion:
    try:
        return await policy.act_one(episode.conversation, episode.next_seed())
    except RlprmError:
        raise
    except Exception as error:  # a failed episode is data, with its cause, not the end of a run
        return failed(error)


async def _in(threads: Executor, function: Callable[..., _R], *arguments: Any) -> _R:
    def guarded() -> _R:
        try:
            return function(*arguments)
        except (SystemExit, KeyboardInterrupt) as error:  # would end the loop, and everybody would wait
            raise RuntimeError(f"an environment ended the program: {cause_of(error)}") from error

    return await asyncio.get_running_loop().run_in_executor(threads, guarded)


def _as_they_end(
    items: Sequence[_T],
    run: Callable[[_T, Executor], Awaitable[_R]],
    policy: FreePolicy,
    tasks: Sequence[Task],
    in_flight: int,
) -> Iterator[_R]:
    """Apply a coroutine to each item, to some of them at one time, and yield results as they come."""
    done: queue.SimpleQueue[_R | None] = queue.SimpleQueue()
    rest = iter(items)

    async def work(threads: Executor) -> None:
        for item in rest:  # shared by all workers
            done.put(await run(item, threads))

    async def work_all() -> None:
        with Threads(concurrency(tasks)) as threads:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(in_flight, len(items))):
                    group.create_task(work(threads))

    future = policy.submit(work_all())
    future.add_done_callback(lambda _: done.put(None))
    try:
        while (result := done.get()) is not None:
            yield result
        future.result()
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    finally:
        future.cancel()
