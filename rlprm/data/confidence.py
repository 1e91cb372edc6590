"""The policy's confidence: the probability that it gave to each of its actions.

The probabilities come from the log-probabilities that are stored with every trajectory. The scorer
``policy_confidence``, the products such as ``agentprm_x_policy`` and the setting ``confidence_per`` use
them.
"""

from __future__ import annotations

import math

from rlprm.data.failures import require_exact
from rlprm.errors import ConfigError
from rlprm.types import Step, Trajectory

__all__ = ["action_probabilities", "check_per"]

_PER = ("action", "token")


def check_per(per: str) -> str:
    """Return ``per`` if it is allowed.

    ``action`` is the joint probability of all sampled tokens of an action. ``token`` is the geometric mean
    over these tokens, for messages so long that all joint probabilities are close to 0.

    Raises:
        ConfigError: if it is neither.
    """
    if per not in _PER:
        raise ConfigError(f"confidence_per: got {per!r}, allowed: {', '.join(_PER)}")
    return per


def action_probabilities(trajectory: Trajectory, per: str) -> tuple[float, ...]:
    """Return ``π(a_t | s_t)`` of each action, in (0, 1], at the temperature it was sampled at.

    Tokens that the policy did not sample, such as a forced closing token, do not count.

    Args:
        trajectory: finished or not.
        per: see :func:`check_per`.

    Raises:
        MismatchError: if its tokens were made from text.
    """
    require_exact(trajectory, "the policy's confidence")
    return tuple(_probability(trajectory, step, per) for step in trajectory.steps)


def _probability(trajectory: Trajectory, step: Step, per: str) -> float:
    place = slice(step.start, step.end + 1)
    sampled = sum(trajectory.action_mask[place])
    return math.exp(sum(trajectory.logprobs[place]) / (max(1, sampled) if per == "token" else 1))
