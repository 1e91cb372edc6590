"""What would the reward pay for repeating an action that changes nothing?

Episodes are taken back to a state in the middle, and the last action is done again and again.
Where the environment answers the same as before, nothing was achieved, and nothing should be paid.
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

__all__ = ["RepeatProbe", "probe_repeats"]

_TIMES = 4
_SIGMAS = 3.0


@dataclass(frozen=True)
class RepeatProbe:
    """What the PRM's share of the reward is for steps that do nothing, and for the others."""

    episodes: int
    """In how many a repeated action changed nothing; the rest were no use."""
    paid_per_repeat: float
    error: float
    """Standard error of it, over episodes."""
    paid_per_step: float
    """Mean over the steps before."""
    value_change: float
    """How much ``v`` changed over the repeats, mean."""

    @property
    def is_hackable(self) -> bool:
        """Whether idling pays, beyond chance; of one episode nobody can tell."""
        pays = self.paid_per_repeat > 1e-6 and self.paid_per_repeat > _SIGMAS * self.error
        return pays and self.episodes > 1


def probe_repeats(
    trajectories: Sequence[Trajectory],
    policy: Policy,
    setting: EpisodeSetting,
    scorer: Scorer,
    credit: CreditSetting,
    *,
    episodes: int,
    seed: int,
) -> RepeatProbe | None:
    """Probe a reward with repeated actions.

    Args:
        trajectories: finished ones, to begin with.
        policy: only its tokenizer and limits are used.
        setting: the trajectories were collected in.
        scorer: gives the values the reward is made of.
        credit: names the reward.
        episodes: how many to look for.
        seed: chooses them, and where each is taken back to.

    Returns:
        None where no repeated action was without effect.
    """
    generator = np.random.default_rng(seed)
    candidates = [t for t in trajectories if len(t.steps) > 1]
    found: list[tuple[Trajectory, int]] = []
    for index in generator.permutation(len(candidates)).tolist():
        if len(found) == episodes:
            break
        chosen = candidates[index]
        done = int(generator.integers(1, len(chosen.steps)))
        idle = _repeated(replay(chosen, setting, policy)[done])
        if idle is not None:
            found.append((idle, done))
    if not found:
        return None
    idle_ones = [trajectory for trajectory, _ in found]
    batch, reads = Batch.from_trajectories(idle_ones), prm_values(scorer.score(idle_ones))
    paid_BT = rewards.load(credit.reward).step_rewards(
        reads.values_BT1, batch.outcomes_B, batch.lengths_B, gamma=credit.gamma, states_BT=reads.states_BT,
        **dict(credit.reward_kwargs or {}),
    ).prm  # fmt: skip
    repeats, steps, changes = [], [], []
    for row, (trajectory, done) in enumerate(found):
        last = len(trajectory.steps) - 1  # rewards treat the last step as the end: it is left out
        repeats.append(float(paid_BT[row, done:last].mean()))
        steps.append(float(paid_BT[row, :done].mean()))
        changes.append(float(reads.values_BT1[row, last] - reads.values_BT1[row, done]))
    error = stdev(repeats) / math.sqrt(len(repeats)) if len(repeats) > 1 else 0.0
    return RepeatProbe(len(found), mean(repeats), error, mean(steps), mean(changes))


def _repeated(episode: Episode) -> Trajectory | None:
    """Do the last action again; None unless the episode goes on and every answer is the same."""
    step = episode.conversation.steps[-1]
    said = episode.conversation.token_ids[step.start : step.end + 1]
    again = Completion(tuple(said), (0.0,) * len(said))
    seen = episode.conversation.messages[-1]["content"]
    for _ in range(_TIMES):
        if episode.stop is not None or episode.turn + 1 >= episode.round_limit:
            return None
        episode.advance(again)
        if episode.stop is not None or episode.conversation.messages[-1]["content"] != seen:
            return None
    return episode.trajectory()
