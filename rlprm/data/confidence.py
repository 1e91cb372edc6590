"""How sure a policy was of what it did, from the log-probabilities stored while it acted.

This is what ``likelihood`` means in ``confidence_per`` and in the scorers ``likelihood`` and
``agentprm_x_policy``; the reward model's head of that name is :mod:`rlprm.models.lm_head`.
"""

from __future__ import annotations

import math

from rlprm.errors import ConfigError
from rlprm.types import Step, Trajectory

__all__ = ["action_probabilities", "check_per"]

_PER = ("action", "token")


def check_per(per: str) -> str:
    """Return it, if it says whose probability is meant.

    Raises:
        ConfigError: unless it is ``action`` (all sampled tokens of an action together) or ``token`` (their
            geometric mean, for messages so long that their joint probability says little).
    """
    if per not in _PER:
        raise ConfigError(f"confidence_per: got {per!r}, allowed: {', '.join(_PER)}")
    return per


def action_probabilities(trajectory: Trajectory, per: str) -> tuple[float, ...]:
    """Return ``π(a_t | s_t)`` of each action, in (0, 1], at the temperature it was sampled at.

    Tokens that were not sampled (a closing token that was forced) do not count.

    Args:
        trajectory: finished or not.
        per: see :func:`check_per`.
    """
    return tuple(_probability(trajectory, step, per) for step in trajectory.steps)


def _probability(trajectory: Trajectory, step: Step, per: str) -> float:
    place = slice(step.start, step.end + 1)
    sampled = sum(trajectory.action_mask[place])
    return math.exp(sum(trajectory.logprobs[place]) / (max(1, sampled) if per == "token" else 1))
