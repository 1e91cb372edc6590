"""What an advantage estimator is: a pure function from rewards (and values) to credit.

An estimator is a module of this package (or of the user's own) with the constants and
the function of ``AdvantageModule``; a new one is a new file. Its settings are the
keyword-only parameters of ``estimate`` other than ``gamma``.

γ is the discount from one step to the next. It is never counted from the start of the
episode: a step's credit does not depend on how many came before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from rlprm.errors import ConfigError
from rlprm.functional._checks import check_lengths, check_matrix, check_shape, check_unit_interval
from rlprm.functional.groups import GroupDeviations, group_deviations
from rlprm.functional.masking import length_mask
from rlprm.functional.returns import discounted_suffix_sums
from rlprm.functional.tokens import TokenLayout

__all__ = [
    "AdvantageInputs",
    "AdvantageModule",
    "Advantages",
    "Level",
    "Whitening",
    "against_group",
    "check_needs",
    "end_values",
    "episode_returns",
]

Level = Literal["trajectory", "step", "token"]
Whitening = Literal["both", "scale", "none"]


@dataclass(frozen=True, eq=False)
class AdvantageInputs:
    """A padded batch of episodes; an estimator's ``NEEDS`` are the optional parts it cannot do without."""

    rewards_BT: Tensor
    """The reward of each step: all shares summed, the KL penalty included if it is part of the reward."""
    lengths_B: Tensor
    """Number of steps; 0 allowed."""
    bootstrapped_B: Tensor | None = None
    """Boolean: rows cut off by a limit whose continuation is bootstrapped. None: every end is an end."""
    values_BT: Tensor | None = None
    """The critic's value before each step."""
    values_BL: Tensor | None = None
    """The critic's value before each token: entry l is read at the position that predicts token l."""
    end_values_B: Tensor | None = None
    """The critic's value of the continuation after the last step; read only in bootstrapped rows."""
    prm_values_BT1: Tensor | None = None
    """The PRM's ``v_0 ... v_T``."""
    prm_states_BT: Tensor | None = None
    """The PRM's ``x_1 ... x_T``, if it reads states too."""
    outcomes_B: Tensor | None = None
    """The outcome of each episode, in [0, 1]."""
    groups_B: Tensor | None = None
    """An integer for each row, equal for the rollouts of one task, which must all be in the batch."""
    layout: TokenLayout | None = None
    """Which token belongs to which step."""

    def __post_init__(self) -> None:
        """Refuse tensors whose shapes do not belong together."""
        rows, width = check_matrix("rewards_BT", self.rewards_BT)
        check_lengths(self.lengths_B, rows, width)
        if self.bootstrapped_B is not None:
            check_shape("bootstrapped_B", self.bootstrapped_B, (rows,))
            if self.bootstrapped_B.dtype != torch.bool:
                raise ValueError(f"bootstrapped_B has dtype {self.bootstrapped_B.dtype}, expected torch.bool")

    @property
    def exists(self) -> Tensor:
        """(B, T), boolean: which steps exist."""
        return length_mask(self.lengths_B, self.rewards_BT.shape[1])


class Advantages(NamedTuple):
    """An estimate; all tensors have one shape: (B, T), or (B, L) where ``LEVEL`` is ``token``."""

    advantages: Tensor
    """Credit of each step or token; 0 in the padding. Not normalised; without gradient."""
    returns: Tensor | None
    """Targets of the critic, 0 in the padding; None without a critic."""
    mask: Tensor
    """Boolean: which entries exist."""
    prm: Tensor | None = None
    """The part of ``advantages`` that the PRM gives, if they are a sum with such a part; 0 in the padding."""


class AdvantageModule(Protocol):
    """The constants and the function an advantage module defines."""

    NEEDS: frozenset[str]
    """The optional fields of ``AdvantageInputs`` it cannot do without."""
    LEVEL: Level
    """The unit of credit: the episode, each step, or each token."""
    CAN_BOOTSTRAP: bool
    """Whether it can treat a truncated episode as one that goes on."""
    WHITENING: Whitening
    """How its estimates are best brought to one size over an update (``functional.moments.whiten``):
    centred and scaled, scaled alone, or left as they are."""

    def estimate(self, inputs: AdvantageInputs, *, gamma: float, **advantage_kwargs: Any) -> Advantages:
        """Return the advantages of a batch; row b depends only on row b (or on its group).

        Args:
            inputs: the batch.
            gamma: the discount of RL, the one the rewards were made with.
            **advantage_kwargs: the estimator's settings (keyword-only parameters by name).

        Raises:
            ConfigError: for a setting out of range, or a part of the batch that is missing.
        """
        ...


def check_needs(inputs: AdvantageInputs, needs: frozenset[str], estimator: str) -> None:
    """Refuse a batch without what the estimator needs.

    Raises:
        ConfigError: naming what is missing.
    """
    missing = sorted(name for name in needs if getattr(inputs, name) is None)
    if missing:
        raise ConfigError(f"the advantage estimator {estimator} needs {', '.join(missing)}")


def end_values(inputs: AdvantageInputs, given_B: Tensor | None) -> Tensor:
    """Return (B,): the value after the last step, 0 if the episode ended, the given value if it continues.

    Raises:
        ConfigError: if a row is bootstrapped and no value is given.
    """
    zeros_B = inputs.rewards_BT.new_zeros(len(inputs.lengths_B))
    if inputs.bootstrapped_B is None or not inputs.bootstrapped_B.any():
        return zeros_B
    if given_B is None:
        raise ConfigError("a truncated episode can only be bootstrapped with end_values_B")
    check_shape("end_values_B", given_B, tuple(zeros_B.shape))
    return given_B.detach().where(inputs.bootstrapped_B, 0.0)


def against_group(inputs: AdvantageInputs, *, gamma: float) -> GroupDeviations:
    """Compare each episode's discounted return ``Σ_t γ^{t-1} r_t`` with those of its group.

    An episode without steps has made no decision and does not count.

    Raises:
        ConfigError: for an episode that goes on: its return is not known, and no critic stands for it.
    """
    assert inputs.groups_B is not None
    return group_deviations(episode_returns(inputs, gamma=gamma), inputs.groups_B, inputs.lengths_B > 0)


def episode_returns(inputs: AdvantageInputs, *, gamma: float) -> Tensor:
    """Return ``Σ_t γ^{t-1} r_t`` of each episode, (B,); 0 for one without steps.

    Raises:
        ConfigError: for an episode that goes on: its return is not known, and no critic stands for it.
    """
    check_unit_interval("gamma", gamma)
    if inputs.bootstrapped_B is not None and inputs.bootstrapped_B.any():
        raise ConfigError("returns of whole episodes cannot be bootstrapped; count truncations as ends")
    rewards_BT = inputs.rewards_BT.detach().to(torch.promote_types(inputs.rewards_BT.dtype, torch.float32))
    return discounted_suffix_sums(rewards_BT.where(inputs.exists, 0.0), gamma)[:, 0]
