"""Many environments at once, one policy: tasks become trajectories.

An :class:`Episode` ties an environment to a conversation and keeps the rules
both share: round limit, context limit, stop reasons, failures as data. Rollouts,
beam search and Monte-Carlo estimates all advance episodes through it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy

import numpy as np

from rlprm import envs
from rlprm.data.conversation import Conversation
from rlprm.data.formats import Format, load_format
from rlprm.errors import ContextLengthError, RlprmError
from rlprm.policies.base import Completion, Policy, action_seed
from rlprm.types import EpisodeSetting, Outcome, StopReason, Task, Trajectory

_FAILED = Outcome(0.0, False, "error")


class Episode:
    """One environment, the conversation with it, and the rules for stopping."""

    def __init__(self, task: Task, sample: int, seed: int, setting: EpisodeSetting, policy: Policy) -> None:
        module = envs.load(task.environment)
        self.task, self.sample, self.seed, self.setting, self.policy = task, sample, seed, setting, policy
        self.format: Format = load_format(setting.action_format)
        self.round_limit = setting.round_limit or module.ROUND_LIMIT
        self.env = module.make(task, end=setting.end)
        observation = self.env.reset()
        opening = module.opening(end=setting.end, style=setting.prompt)
        self.conversation = Conversation(
            policy.renderer, [*opening, {"role": "user", "content": observation}]
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
        text = self.conversation.act(completion.ids, completion.logprobs)
        parsed = self.format.parse(text)
        if parsed.refusal is not None:
            observation, reward, stop, valid = parsed.refusal, 0.0, None, False
        else:
            try:
                turn = self.env.step(parsed.action)
            except Exception as error:  # a failed episode is data, with its cause, not the end of a run
                self.stop, self.error = StopReason.ERROR, f"{type(error).__name__}: {error}"
                self.conversation.record(parsed.action, 0.0)
                return
            observation, reward, stop, valid = turn.observation, turn.reward, turn.stop, turn.valid
        self.conversation.record(parsed.action, reward, valid=valid)
        if stop is None and self.turn >= self.round_limit:
            stop = StopReason.ROUND_LIMIT
        if stop is not None:
            self.conversation.note(observation)
        else:
            self.conversation.observe(observation)
            if not self._fits():
                stop = StopReason.CONTEXT_LIMIT
        self.stop = stop

    def fork(self, seed: int | None = None) -> Episode:
        """Return an independent copy in the same state, with a seed of its own if given."""
        other = copy(self)
        other.env = self.env.fork()
        other.conversation = self.conversation.fork()
        other.seed = self.seed if seed is None else seed
        return other

    def trajectory(self) -> Trajectory:
        """Freeze the episode, finished or not.

        Token ids end with the last action: whatever the environment said after
        it is kept as text only, since a closing message gives the outcome away.
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
        )

    def _judge(self) -> Outcome:
        if self.stop is not StopReason.ERROR:
            try:
                return self.env.outcome()
            except Exception as error:  # a failed judgement is data, too
                self.stop, self.error = StopReason.ERROR, f"{type(error).__name__}: {error}"
        return _FAILED

    def _fits(self) -> bool:
        return len(self.conversation) + self.policy.max_new_tokens <= self.policy.context_length


def episode_seed(run_seed: int, task: Task, sample: int) -> int:
    """Seed of one episode: a function of the run, the task and the sample's number, nothing else."""
    sequence = np.random.SeedSequence(run_seed, spawn_key=(sample, *task.id.encode()))
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def start_episode(
    task: Task, sample: int, seed: int, setting: EpisodeSetting, policy: Policy
) -> Episode | Trajectory:
    """Start an episode; where the environment fails to, return that as an ``ERROR`` trajectory without steps.

    Raises:
        RlprmError: for settings that cannot work.
    """
    try:
        return Episode(task, sample, seed, setting, policy)
    except RlprmError:
        raise
    except Exception as error:  # a failed start is data, too
        return _failed_start(task, sample, seed, setting, policy, error)


def run_episodes(
    episodes: Sequence[Episode], policy: Policy, on_turn: Callable[[int], None] | None = None
) -> None:
    """Advance all episodes, in step, until each has stopped.

    Args:
        episodes: at any state; finished ones are left alone.
        policy: acts for all of them.
        on_turn: called after each turn with the number of episodes still running.
    """
    running = [episode for episode in episodes if episode.stop is None]
    while running:
        completions = policy.act([e.conversation for e in running], [e.next_seed() for e in running])
        for episode, completion in zip(running, completions, strict=True):
            episode.advance(completion)
        running = [episode for episode in running if episode.stop is None]
        if on_turn is not None:
            on_turn(len(running))


def rollout(
    jobs: Sequence[tuple[Task, int]], policy: Policy, setting: EpisodeSetting, run_seed: int = 0
) -> list[Trajectory]:
    """Run one wave: an episode for each (task, sample number), all in step.

    An episode that cannot even start is returned as an ``ERROR`` trajectory
    only if its environment failed; settings that cannot work raise.
    """
    episodes = [
        start_episode(task, sample, episode_seed(run_seed, task, sample), setting, policy)
        for task, sample in jobs
    ]
    run_episodes([e for e in episodes if isinstance(e, Episode)], policy)
    return [e if isinstance(e, Trajectory) else e.trajectory() for e in episodes]


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
        error=f"{type(error).__name__}: {error}",
    )
