"""One episode, and steps of several ones: environments and conversations advance together.

An :class:`Episode` joins an environment and a conversation. It applies the round limit
and the context limit, sets the stop reason, and records failures as data. Rollouts, beam
search and Monte-Carlo estimates all advance episodes through it.

Environments that wait on a network run in threads. The threads change no result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import TypeVar

import numpy as np

from rlprm import envs
from rlprm.data.conversation import Conversation
from rlprm.data.formats import Parsed
from rlprm.envs import Environment
from rlprm.errors import ConfigError, ContextLengthError, RlprmError
from rlprm.policies.base import Completion, Policy, action_seed
from rlprm.rollouts.acting import cause_of
from rlprm.rollouts.messages import message_reader
from rlprm.rollouts.threads import concurrency, shared_threads
from rlprm.types import EpisodeSetting, Message, Outcome, StopReason, Task, Trajectory, Turn

_T = TypeVar("_T")
_R = TypeVar("_R")
_FAILED = Outcome(0.0, False, "error")


class Episode:
    """One environment, the conversation with it, and the rules for stopping.

    Args:
        task: to solve.
        sample: number among the episodes of the task.
        seed: of the random numbers of the episode.
        setting: round limit, prompt, action format and end of the episode.
        policy: acts in the episode.
        begun: the environment and its first observation, if the environment has been reset already.
    """

    def __init__(
        self,
        task: Task,
        sample: int,
        seed: int,
        setting: EpisodeSetting,
        policy: Policy,
        begun: tuple[Environment, str] | None = None,
    ) -> None:
        module = envs.of_task(task)
        self.task, self.sample, self.seed, self.setting, self.policy = task, sample, seed, setting, policy
        self.reader = message_reader(task, setting, policy.renderer)
        self.round_limit = setting.round_limit or module.ROUND_LIMIT
        self.env, observation = begun or _begin(task, setting)
        opening = module.opening(end=setting.end, style=setting.prompt)
        self.conversation = Conversation(
            self.reader.renderer,
            [*opening, {"role": "user", "content": observation}],
            owner=(task.environment, task.id),
        )
        self.stop: StopReason | None = None
        self.error: str | None = None
        if not self._fits():
            raise ContextLengthError(
                f"the prompt of task {task.id} has {len(self.conversation)} tokens; with "
                f"{policy.max_new_tokens} for an action it does not fit into the context of "
                f"{policy.context_length}"
            )

    @property
    def turn(self) -> int:
        """Number of actions taken so far."""
        return len(self.conversation.steps)

    def next_seed(self, branch: int = 0) -> int:
        """Seed of the next action."""
        return action_seed(self.seed, self.turn, branch)

    def advance(self, completion: Completion) -> None:
        """Take one sampled action; sets ``stop`` when the episode is over."""
        parsed = self.append_action(completion)
        self.append_answer(parsed, self.query_environment(parsed))

    def append_action(self, completion: Completion) -> Parsed:
        """First part of ``advance``: append the action to the conversation, and parse it.

        If the policy could not act, the episode stops.
        """
        if completion.error is not None:
            self.stop, self.error = StopReason.ERROR, completion.error
            return self.read_action(completion)
        text = self.conversation.act(
            completion.ids,
            completion.logprobs,
            completion.mask,
            said=completion.said,
            fed_tokens=completion.fed_tokens,
        )
        parsed, self.conversation.messages[-1] = self._read(completion, text)
        return parsed

    def read_action(self, completion: Completion) -> Parsed:
        """Return the action that a sampled message stands for, without taking it."""
        if completion.error is not None:
            return Parsed("", refusal=completion.error)
        return self._read(completion, self.policy.renderer.action_text(completion.ids))[0]

    def _read(self, completion: Completion, text: str) -> tuple[Parsed, Message]:
        return self.reader.read(text) if completion.said is None else self.reader.read_said(completion.said)

    def query_environment(self, parsed: Parsed) -> Turn | Exception:
        """Second part: return the answer of the environment, or its error. Changes the environment only."""
        if parsed.refusal is not None:
            return Turn(parsed.refusal, valid=False)
        try:
            return self.env.step(parsed.action)
        except Exception as error:  # a failed episode is data, with its cause, not the end of a run
            return error

    def append_answer(self, parsed: Parsed, answer: Turn | Exception) -> None:
        """Third part: append the answer to the conversation; sets ``stop`` if the episode is over."""
        if self.stop is not None:
            return
        if isinstance(answer, Exception):
            self.stop, self.error = StopReason.ERROR, cause_of(answer)
            self.conversation.record(parsed.action, 0.0)
            return
        self.conversation.record(parsed.action, answer.reward, valid=answer.valid)
        stop = answer.stop
        if stop is None and self.turn >= self.round_limit:
            stop = StopReason.ROUND_LIMIT
        if stop is not None:
            self.conversation.note(answer.observation, *answer.more)
        else:
            self.conversation.observe(answer.observation, *answer.more)
            if not self._fits():
                stop = StopReason.CONTEXT_LIMIT
        self.stop = stop

    def fork(self, seed: int | None = None) -> Episode:
        """Return an independent copy in the same state, with a seed of its own if given."""
        other = copy(self)
        if not hasattr(self.env, "fork"):
            raise ConfigError(
                f"the environment {self.task.environment} has no fork(), which beam search, estimate and "
                'probe-actions need (evaluate runs without with --beams "[]")'
            )
        other.env = self.env.fork()
        other.conversation = self.conversation.fork()
        other.seed = self.seed if seed is None else seed
        return other

    def trajectory(self) -> Trajectory:
        """Freeze the episode, finished or not.

        Token ids end with the last action. The observation after it is stored as text only, since a
        closing message reveals the outcome.
        """
        conversation = self.conversation
        length = conversation.steps[-1].end + 1 if conversation.steps else len(conversation)
        outcome = self._judge()
        return Trajectory(
            task=self.task,
            sample=self.sample,
            seed=self.seed,
            messages=tuple(conversation.messages),
            token_ids=tuple(conversation.token_ids[:length]),
            action_mask=tuple(conversation.action_mask[:length]),
            logprobs=tuple(conversation.logprobs[:length]),
            steps=tuple(conversation.steps),
            outcome=outcome,
            stop=self.stop,
            end=self.setting.end,
            temperature=self.policy.temperature,
            policy=self.policy.revision,
            template=self.policy.renderer.template_hash,
            error=self.error,
            exact=conversation.exact,
            fed_tokens=None if conversation.exact else conversation.fed_tokens,
        )

    def _judge(self) -> Outcome:
        if self.stop is not StopReason.ERROR:
            try:
                return self.env.outcome()
            except Exception as error:  # a failed judgement is data, too
                self.stop, self.error = StopReason.ERROR, cause_of(error)
        return _FAILED

    def _fits(self) -> bool:
        return len(self.conversation) + self.policy.max_new_tokens <= self.policy.context_length


def episode_seed(run_seed: int, task: Task, sample: int) -> int:
    """Return the seed of one episode, a function of the seed of the run, the task and the sample number."""
    sequence = np.random.SeedSequence(run_seed, spawn_key=(sample, *task.id.encode()))
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def start_episode(
    task: Task, sample: int, seed: int, setting: EpisodeSetting, policy: Policy
) -> Episode | Trajectory:
    """Start an episode. If the environment fails, return an ``ERROR`` trajectory without steps.

    Raises:
        RlprmError: if the settings are wrong.
    """
    (started,) = start_episodes([(task, sample, seed)], setting, policy)
    return started


def start_episodes(
    jobs: Sequence[tuple[Task, int, int]], setting: EpisodeSetting, policy: Policy
) -> list[Episode | Trajectory]:
    """Start an episode for each (task, sample number, seed), in order; see ``start_episode``.

    Raises:
        RlprmError: if the settings are wrong.
    """
    begun = side_by_side(lambda job: _try_to_begin(job[0], setting), jobs, [task for task, _, _ in jobs])
    return [_started(*job, setting, policy, start) for job, start in zip(jobs, begun, strict=True)]


def side_by_side(work: Callable[[_T], _R], items: Sequence[_T], tasks: Sequence[Task]) -> list[_R]:
    """Apply a function that calls environments, to several in threads if they wait on a network.

    Args:
        work: a function of an item that may run in a thread.
        items: one for each task.
        tasks: of the items; the ``CONCURRENT`` of their environments is the number of threads.

    Returns:
        The results, in order.
    """
    width = min(concurrency(tasks), len(items))
    if width <= 1:
        return [work(item) for item in items]
    return list(shared_threads(concurrency(tasks)).map(work, items))


def advance_all(episodes: Sequence[Episode], completions: Sequence[Completion]) -> None:
    """Take one sampled action in each of several episodes, as ``Episode.advance`` does one after another."""
    said = [
        episode.append_action(completion) for episode, completion in zip(episodes, completions, strict=True)
    ]
    pairs = list(zip(episodes, said, strict=True))
    answers = side_by_side(
        lambda pair: pair[0].query_environment(pair[1]), pairs, [episode.task for episode in episodes]
    )
    for (episode, parsed), answer in zip(pairs, answers, strict=True):
        episode.append_answer(parsed, answer)


def _begin(task: Task, setting: EpisodeSetting) -> tuple[Environment, str]:
    env = envs.of_task(task).make(task, end=setting.end)
    return env, env.reset()


def _try_to_begin(task: Task, setting: EpisodeSetting) -> tuple[Environment, str] | Exception:
    try:
        return _begin(task, setting)
    except RlprmError:
        raise
    except Exception as error:  # a failed start is data, too
        return error


def _started(
    task: Task,
    sample: int,
    seed: int,
    setting: EpisodeSetting,
    policy: Policy,
    begun: tuple[Environment, str] | Exception,
) -> Episode | Trajectory:
    if isinstance(begun, Exception):
        return _failed_start(task, sample, seed, setting, policy, begun)
    try:
        return Episode(task, sample, seed, setting, policy, begun)
    except RlprmError:
        raise
    except Exception as error:
        return _failed_start(task, sample, seed, setting, policy, error)


def _failed_start(
    task: Task, sample: int, seed: int, setting: EpisodeSetting, policy: Policy, error: Exception
) -> Trajectory:
    return Trajectory(
        task=task,
        sample=sample,
        seed=seed,
        messages=(),
        token_ids=(),
        action_mask=(),
        logprobs=(),
        steps=(),
        outcome=_FAILED,
        stop=StopReason.ERROR,
        end=setting.end,
        temperature=policy.temperature,
        policy=policy.revision,
        template=policy.renderer.template_hash,
        error=cause_of(error),
    )
