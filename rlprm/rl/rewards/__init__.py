"""Step rewards; each module in this package is one, named after its file.

With the PRM's values v, the outcome r, the scale c and the discount of RL γ, step t is paid

* ``outcome`` (the control): r at T
* ``progress`` (the default): ``c (γ v_t - v_{t-1})``, at T ``-c v_{T-1}``; plus r at T
* ``progress_terminal``: ``c (γ v_t - v_{t-1})``, at T too; plus r at T
* ``promise``: ``c v_t``; plus r at T
* ``terminal``: ``c v_T`` at T; plus r at T, or instead of it
* ``min``: ``c w_t (v_t - m)`` with weights towards the lowest value; plus r at T
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch

from rlprm.components import available_in, check_kwargs, load_component
from rlprm.rl.rewards.base import NOT_SETTINGS, RewardModule, StepRewards

__all__ = ["REQUIRED", "RewardModule", "StepRewards", "available", "check_settings", "critic_factor", "load"]

_NOT_REWARDS = frozenset({"base"})
REQUIRED = ("NEEDS_VALUES", "CAN_BOOTSTRAP", "TOTAL_OF", "step_rewards", "critic_factor")


def available() -> list[str]:
    """Names of the step rewards that come with the package."""
    return available_in(__name__, exclude=_NOT_REWARDS)


def load(name: str) -> RewardModule:
    """Import a step reward by name, dotted path, or path of a ``.py`` file.

    The name must come from the run's settings.

    Raises:
        UnknownComponentError: listing the names there are.
        ConfigError: if a module of the user's own cannot be imported, or lacks a required name.
    """
    return cast(
        RewardModule, load_component(__name__, name, "step reward", exclude=_NOT_REWARDS, needs=REQUIRED)
    )


def check_settings(name: str, reward_kwargs: Mapping[str, Any], *, gamma: float = 1.0) -> None:
    """Refuse an unknown step reward or settings it does not take, before any episode is run.

    The values of the settings are tried on a trajectory of one step.

    Raises:
        ConfigError: saying what is allowed.
    """
    module = load(name)
    check_kwargs(module.step_rewards, reward_kwargs, f"the step reward {name}", not_settings=NOT_SETTINGS)
    one = torch.ones(1, dtype=torch.long)
    module.step_rewards(torch.zeros(1, 2), torch.zeros(1), one, gamma=gamma, **reward_kwargs)
    module.critic_factor(**reward_kwargs)


def critic_factor(name: str, reward_kwargs: Mapping[str, Any]) -> float | None:
    """Return the factor k of the critic's right initial value ``k V(s)``, where V(s) is the PRM's value.

    A critic that starts elsewhere sees advantages that are not there. Under ``progress`` the critic predicts
    the outcome, and the potential is subtracted from its values (``rlprm.rl.credit``).

    Returns:
        0: start at zero. 1: the PRM's own value. None: no multiple of V is right; let
        the critic learn before the policy moves.
    """
    return load(name).critic_factor(**reward_kwargs)
