"""What a step reward is: a pure function from a padded batch of values to the reward of each step.

A step reward is a module of this package (or of the user's own) with the constants and
functions of ``RewardModule``; a new one is a new file. Its settings are the
keyword-only parameters of ``step_rewards`` other than ``NOT_SETTINGS``.

Values are those of a PRM: ``v_t`` after action t, predictions of the undiscounted
outcome. They are clipped to [v_min, v_max] *before* anything is computed from them;
the rewards themselves are never clipped or centred one by one, which would break
the telescoping that some of them rest on.

Where an episode was cut off by a limit there are two ways, chosen per row by
``bootstrapped_B`` and the same for every reward and every advantage estimator:

* A truncation is an *end* (the default). The environment judged the episode as it
  stood, and that outcome counts; the potential after it is 0.
* A truncation is *bootstrapped*: the episode is taken to go on unseen, a critic's value
  stands for what would have followed. Nothing that belongs to an end is paid then: no
  outcome (the value predicts it: it would count twice), and the potential stays.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from rlprm.errors import ConfigError
from rlprm.functional._checks import (
    check_number,
    check_shape,
    check_trajectories,
    check_unit_interval,
    check_values,
)
from rlprm.functional.masking import length_mask

__all__ = [
    "NOT_SETTINGS",
    "RewardModule",
    "StepRewards",
    "StepValues",
    "check_scale",
    "outcome_share",
    "step_values",
]

NOT_SETTINGS = frozenset({"gamma", "states_BT", "bootstrapped_B"})
"""Keyword-only parameters of ``step_rewards`` that are data or settings of the run, not of the reward."""


class StepRewards(NamedTuple):
    """The two shares of each step's reward, (B, T) each, kept apart for the logs; 0 in the padding."""

    prm: Tensor
    """What comes from the PRM's values."""
    outcome: Tensor
    """What comes from the environment: the outcome, at the last step."""
    potential_BT1: Tensor | None = None
    """The potential whose differences are ``prm``: before each step and, at entry T of a row, after the
    last; None if ``prm`` is no difference of potentials that ends at 0. The critic then predicts returns
    without the differences (``rlprm.rl.credit``)."""

    @property
    def total(self) -> Tensor:
        """The reward: the sum of both shares."""
        return self.prm + self.outcome


class RewardModule(Protocol):
    """The constants and functions a step-reward module defines."""

    NEEDS_VALUES: bool
    """Whether it pays for the values of a PRM."""
    CAN_BOOTSTRAP: bool
    """Whether it makes sense for an episode that goes on unseen."""
    TOTAL_OF: str | None
    """The simpler reward whose discounted sum over an episode differs from this one's only by a constant of
    the task; None if there is none. An estimator that compares the returns of episodes, as within a group
    of rollouts, gives both the same advantages."""

    def step_rewards(
        self,
        values_BT1: Tensor | None,
        outcomes_B: Tensor,
        lengths_B: Tensor,
        *,
        gamma: float,
        states_BT: Tensor | None = None,
        bootstrapped_B: Tensor | None = None,
        **reward_kwargs: Any,
    ) -> StepRewards:
        """Return the reward of each step; row b depends only on row b, and not on its padding.

        Args:
            values_BT1: the PRM's ``v_0 ... v_T``; may be None unless ``NEEDS_VALUES``.
            outcomes_B: the outcome of each trajectory, in [0, 1]; 0 is an outcome like any other.
            lengths_B: number of steps of each trajectory; a row without steps gets no reward.
            gamma: the discount of RL, from one step to the next. Advantages must be
                estimated with the same one.
            states_BT: ``x_1 ... x_T``, the value before each action; None unless the PRM reads
                states, too.
            bootstrapped_B: boolean: rows cut off by a limit whose continuation is
                bootstrapped. None: every end is an end.
            **reward_kwargs: the reward's settings (keyword-only parameters by name).

        Raises:
            ConfigError: for a setting out of range, or missing values.
            DataError: for outcomes or values that cannot be.
        """
        ...

    def critic_factor(self, **reward_kwargs: Any) -> float | None:
        """Return k such that a critic's right initial value is ``k V(s)``; None if there is no such k.

        The critic of a reward with potentials predicts returns without the potentials' differences.
        """
        ...


class StepValues(NamedTuple):
    """A PRM's checked and clipped values, step by step; 0 in the padding."""

    before_BT: Tensor
    """The value of the state each step acts in: ``x_t`` if states are read, else ``v_{t-1}``."""
    after_BT: Tensor
    """``v_t``, the value after each action."""
    next_BT: Tensor
    """The value of the state that follows each step: ``before_{t+1}``, and ``v_T`` at the last step."""
    exists_BT: Tensor
    """Boolean: which steps exist."""
    ends_BT: Tensor
    """Boolean: the last step of each episode that ended, i.e. is not bootstrapped."""
    outcome_BT: Tensor
    """The outcome at those, 0 elsewhere."""


def step_values(
    values_BT1: Tensor | None,
    outcomes_B: Tensor,
    lengths_B: Tensor,
    gamma: float,
    states_BT: Tensor | None,
    bootstrapped_B: Tensor | None,
    clip: tuple[float, float],
) -> StepValues:
    """Check what a reward is given, clip the values, and lay them out by step; without gradient.

    The arguments are those of ``RewardModule.step_rewards``; ``clip`` is (v_min, v_max).

    Raises:
        ConfigError: for missing values, a discount outside [0, 1] or a clip range that is none.
        DataError: for a value that is not finite at a position that exists, or an outcome outside [0, 1].
    """
    check_unit_interval("gamma", gamma)
    if values_BT1 is None:
        raise ConfigError("this step reward needs the values of a PRM; without one, use outcome")
    v_min = check_number("v_min", clip[0])
    v_max = check_number("v_max", clip[1], above=v_min)
    width = check_trajectories(values_BT1, outcomes_B, lengths_B)
    exists_BT = length_mask(lengths_B, width)
    values_BT1 = values_BT1.detach().to(torch.promote_types(values_BT1.dtype, torch.float32))
    values_BT1 = values_BT1.clamp(v_min, v_max)
    after_BT = values_BT1[:, 1:].where(exists_BT, 0.0)
    if states_BT is None:
        before_BT = values_BT1[:, :-1].where(exists_BT, 0.0)
    else:
        check_shape("states_BT", states_BT, tuple(after_BT.shape))
        check_values(states_BT, exists_BT, "x", 1)
        before_BT = states_BT.detach().to(values_BT1.dtype).clamp(v_min, v_max).where(exists_BT, 0.0)

    is_last_BT = torch.arange(width, device=lengths_B.device) == (lengths_B - 1).unsqueeze(1)
    next_BT = torch.where(is_last_BT, after_BT, before_BT.roll(-1, dims=1)).where(exists_BT, 0.0)
    outcome_BT = outcome_share(outcomes_B, lengths_B, width, bootstrapped_B).to(values_BT1.dtype)
    ends_BT = is_last_BT if bootstrapped_B is None else is_last_BT & ~bootstrapped_B.unsqueeze(1)
    return StepValues(before_BT, after_BT, next_BT, exists_BT, ends_BT, outcome_BT)


def outcome_share(outcomes_B: Tensor, lengths_B: Tensor, width: int, bootstrapped_B: Tensor | None) -> Tensor:
    """Return (B, T): the outcome at the last step of each episode, and 0 if the episode is bootstrapped."""
    is_last_BT = torch.arange(width, device=lengths_B.device) == (lengths_B - 1).unsqueeze(1)
    outcomes_B = outcomes_B.detach().to(torch.promote_types(outcomes_B.dtype, torch.float32))
    if bootstrapped_B is not None:
        check_shape("bootstrapped_B", bootstrapped_B, tuple(lengths_B.shape))
        if bootstrapped_B.dtype != torch.bool:
            raise ValueError(f"bootstrapped_B has dtype {bootstrapped_B.dtype}, expected torch.bool")
        outcomes_B = outcomes_B.where(~bootstrapped_B, 0.0)
    return outcomes_B.unsqueeze(1).where(is_last_BT, 0.0)


def check_scale(scale: float) -> float:
    """Refuse a scale c that is not a number above 0: without the PRM's share, the reward is ``outcome``.

    Raises:
        ConfigError: for any other.
    """
    return check_number("scale", scale, above=0.0)
