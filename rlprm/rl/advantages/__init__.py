"""Advantage estimators; each module in this package is one, named after its file.

* ``turn_gae``: GAE over turns with a critic
* ``token_gae``: GAE over the sampled tokens with a critic
* ``group``: the episode's return minus the mean of its group, for all its steps alike
* ``leave_one_out``: the same against the mean of the others
* ``prm_critic``: GAE over turns with the PRM in the critic's place
* ``outcome_plus_progress``: GAE over turns of the outcome, plus the PRM's progress
* ``filtered``: 1 for the steps of successful episodes, else 0 (behaviour cloning of one's own successes)

An estimate is not normalised: that is ``rlprm.functional.moments.whiten``, with moments of
the complete update.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch

from rlprm.components import available_in, check_kwargs, load_component
from rlprm.functional.tokens import TokenLayout
from rlprm.rl.advantages.base import AdvantageInputs, AdvantageModule, Advantages

__all__ = [
    "REQUIRED",
    "AdvantageInputs",
    "AdvantageModule",
    "Advantages",
    "available",
    "check_settings",
    "load",
]

_NOT_ESTIMATORS = frozenset({"base"})
REQUIRED = ("NEEDS", "LEVEL", "CAN_BOOTSTRAP", "WHITENING", "estimate")
_NOT_SETTINGS = frozenset({"gamma"})


def available() -> list[str]:
    """Names of the advantage estimators that come with the package."""
    return available_in(__name__, exclude=_NOT_ESTIMATORS)


def load(name: str) -> AdvantageModule:
    """Import an advantage estimator by name, dotted path, or path of a ``.py`` file.

    The name must come from the run's settings.

    Raises:
        UnknownComponentError: listing the names there are.
        ConfigError: if a module of the user's own cannot be imported, or lacks a required name.
    """
    module = load_component(__name__, name, "advantage estimator", exclude=_NOT_ESTIMATORS, needs=REQUIRED)
    return cast(AdvantageModule, module)


def check_settings(name: str, advantage_kwargs: Mapping[str, Any], *, gamma: float = 1.0) -> None:
    """Refuse an unknown estimator or settings it does not take, before any episode is run.

    The values of the settings are tried on a trajectory of one step of one token.

    Raises:
        ConfigError: saying what is allowed.
    """
    module = load(name)
    check_kwargs(
        module.estimate, advantage_kwargs, f"the advantage estimator {name}", not_settings=_NOT_SETTINGS
    )
    zero, one = torch.zeros(1, dtype=torch.long), torch.ones(1, dtype=torch.long)
    inputs = AdvantageInputs(
        rewards_BT=torch.zeros(1, 1),
        lengths_B=one,
        outcomes_B=torch.zeros(1),
        values_BT=torch.zeros(1, 1),
        values_BL=torch.zeros(1, 1),
        prm_values_BT1=torch.zeros(1, 2),
        groups_B=zero,
        layout=TokenLayout(zero.unsqueeze(0), zero.unsqueeze(0)),
    )
    module.estimate(inputs, gamma=gamma, **advantage_kwargs)
