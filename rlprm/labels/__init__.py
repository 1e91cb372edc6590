"""Label estimators; each module in this package is one, loaded by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch

from rlprm.components import available_in, load_component
from rlprm.labels.base import (
    EstimatorModule,
    LabelBatch,
    check_kwargs,
    check_no_intermediate_reward,
    from_step_labels,
    make_labels,
    to_step_labels,
)

__all__ = [
    "REQUIRED",
    "EstimatorModule",
    "LabelBatch",
    "available",
    "check_no_intermediate_reward",
    "check_settings",
    "from_step_labels",
    "load",
    "make_labels",
    "to_step_labels",
]

_NOT_ESTIMATORS = frozenset({"base"})
REQUIRED = ("NEEDS_VALUES", "label")


def available() -> list[str]:
    """Names of the label estimators that come with the package."""
    return available_in(__name__, exclude=_NOT_ESTIMATORS)


def load(name: str) -> EstimatorModule:
    """Import a label estimator by name, dotted path, or path of a ``.py`` file.

    The name must come from the run's settings.

    Raises:
        UnknownComponentError: listing the names there are.
        ConfigError: if a module of the user's own cannot be imported, or lacks a required name.
    """
    return cast(
        EstimatorModule,
        load_component(__name__, name, "label estimator", exclude=_NOT_ESTIMATORS, needs=REQUIRED),
    )


def check_settings(name: str, label_estimator_kwargs: Mapping[str, Any]) -> None:
    """Refuse an unknown estimator or settings it does not take, before any data is read.

    The values of the settings are tried on a trajectory of one step.

    Raises:
        ConfigError: saying what is allowed.
    """
    module = load(name)
    check_kwargs(module, label_estimator_kwargs)
    module.label(torch.zeros(1, 2), torch.zeros(1), torch.ones(1, dtype=torch.long), **label_estimator_kwargs)
