"""Probe: the reward of an action that is repeated without effect.

Episodes are taken back to a state in the middle, and the last action is done again and again.
If the environment answers as before, the repeat had no effect and should earn no reward.
A reward that pays for it will be farmed sooner or later; better to know before training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

import numpy as np

from rlprm.policies.base import Completion, Policy
from rlprm.rl import rewards
from rlprm.rl.batch import Batch, prm_values
from rlprm.rl.credit import CreditSetting
from rlprm.rollouts.episode import Episode
from rlprm.rollouts.monte_carlo import replay
from rlprm.scorers.base import Scorer
from rlprm.types import EpisodeSetting, Trajectory

__all__ = ["Repeat", "RepeatProbe", "probe_repeats", "repeat_actions"]

Repeat = tuple[Trajectory, int]
"""An episode that ends with repeats of one action, and the number of steps before them."""
_TIMES = 4
_SIGMAS = 3.0


@dataclass(frozen=True)
class RepeatProbe:
    """The PRM's share of the reward, for steps without effect and for the others."""

    episodes: int
    """Number of episodes with a repeated action without effect."""
    paid_per_repeat: float
    error: float
    """Standard error of it, over episodes."""
    paid_per_step: float
    """Mean over the steps before."""
    value_change: float
    """How much ``v`` changed over the repeats, mean."""

    @property
    def is_hackable(self) -> bool:
        """Whether idling earns a reward beyond chance; one episode is too few to decide."""
        pays = self.paid_per_repeat > 1e-6 and self.paid_per_repeat > _SIGMAS * self.error
        return pays and self.episodes > 1


def repeat_actions(
    trajectories: Sequence[Trajectory],
    policy: Policy,
    setting: EpisodeSetting,
    *,
    episodes: int,
    seed: int,
) -> list[Repeat]:
    """Take episodes back to a state in the middle, and do the last action again.

    Args:
        trajectories: finished ones, to begin with.
        policy: of the episodes; only its renderer and limits are used.
        setting: the trajectories were collected in.
        episodes: number of episodes with such a repeat that are enough.
        seed: of the choice of episodes, and of the step each is taken back to.

    Returns:
        Episodes whose repeated action had no effect; none if all had.

    Raises:
        DataError: if the environment does not repeat itself.
    """
    generator = np.random.default_rng(seed)
    candidates = [t for t in trajectories if len(t.steps) > 1]
    idle: list[Repeat] = []
    for index in generator.permutation(len(candidates)).tolist():
        if len(idle) == episodes:
            break
        chosen = candidates[index]
        done = int(generator.integers(1, len(chosen.steps)))
        repeated = _repeated(replay(chosen, setting, policy)[done])
        if repeated is not None:
            idle.append((repeated, done))
    return idle


def probe_repeats(idle: Sequence[Repeat], scorer: Scorer, credit: CreditSetting) -> RepeatProbe | None:
    """Probe a reward with repeated actions.

    Args:
        idle: see :func:`repeat_actions`.
        scorer: gives the values in the reward.
        credit: names the reward.

    Returns:
        None if every repeated action had an effect.
    """
    if not idle:
        return None
    episodes_idle = [trajectory for trajectory, _ in idle]
    batch, values = Batch.from_trajectories(episodes_idle), prm_values(scorer.score(episodes_idle))
    paid_BT = rewards.load(credit.reward).step_rewards(
        values.values_BT1, batch.outcomes_B, batch.lengths_B, gamma=credit.gamma, states_BT=values.states_BT,
        **dict(credit.reward_kwargs or {}),
    ).prm  # fmt: skip
    repeats, steps, changes = [], [], []
    for row, (trajectory, done) in enumerate(idle):
        last = len(trajectory.steps) - 1  # rewards treat the last step as the end: it is left out
        repeats.append(float(paid_BT[row, done:last].mean()))
        steps.append(float(paid_BT[row, :done].mean()))
        changes.append(float(values.values_BT1[row, last] - values.values_BT1[row, done]))
    error = stdev(repeats) / math.sqrt(len(repeats)) if len(repeats) > 1 else 0.0
    return RepeatProbe(len(idle), mean(repeats), error, mean(steps), mean(changes))


def _repeated(episode: Episode) -> Trajectory | None:
    """Do the last action again; None unless the episode goes on and every answer is the same."""
    step = episode.conversation.steps[-1]
    place = slice(step.start, step.end + 1)
    ids, mask = episode.conversation.token_ids[place], episode.conversation.action_mask[place]
    # A closing token that was forced counts as said: the message is said again in full.
    again = Completion(tuple(ids), (0.0,) * len(ids), mask=(*mask[:-1], 1))
    seen = episode.conversation.messages[-1]["content"]
    for _ in range(_TIMES):
        if episode.stop is not None or episode.turn + 1 >= episode.round_limit:
            return None
        episode.advance(again)
        if episode.stop is not None or episode.conversation.messages[-1]["content"] != seen:
            return None
    return episode.trajectory()
