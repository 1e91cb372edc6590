"""What a label estimator is: a pure function from a padded batch to training targets.

An estimator is a module of this package (or of the user's own) with a constant
``NEEDS_VALUES`` and a function ``label``; a new estimator is a new file. Its
settings are the keyword-only parameters of ``label``, except ``links_per_action``.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from rlprm import components
from rlprm.errors import DataError
from rlprm.types import StepLabels, Trajectory

__all__ = [
    "EstimatorModule",
    "LabelBatch",
    "check_kwargs",
    "check_no_intermediate_reward",
    "from_step_labels",
    "make_labels",
    "to_step_labels",
]

_LINKS = "links_per_action"


@dataclass(frozen=True, eq=False)
class LabelBatch:
    """Targets of a padded batch; targets and weights are 0 in the padding."""

    promise: Tensor
    """(B, T+1): targets of ``v_0 ... v_T``."""
    progress: Tensor
    """(B, T): targets of ``v_t - v_{t-1}`` for ``t = 1 ... T``."""
    promise_weight: Tensor
    """(B, T+1): weight of each promise target; 0 where there is none."""
    progress_weight: Tensor
    """(B, T): weight of each progress target; 0 where there is none."""

    def __post_init__(self) -> None:
        """Refuse tensors whose shapes do not belong together."""
        values, links = tuple(self.promise.shape), tuple(self.progress.shape)
        if len(values) != 2 or links != (values[0], values[1] - 1):
            raise ValueError(f"promise has shape {values} and progress {links}, expected (B, T+1) and (B, T)")
        if tuple(self.promise_weight.shape) != values or tuple(self.progress_weight.shape) != links:
            raise ValueError(
                f"the weights have shapes {tuple(self.promise_weight.shape)} and "
                f"{tuple(self.progress_weight.shape)}, the targets {values} and {links}"
            )

    def to(self, device: torch.device | str) -> LabelBatch:
        """Return the same labels on another device."""
        return LabelBatch(
            self.promise.to(device),
            self.progress.to(device),
            self.promise_weight.to(device),
            self.progress_weight.to(device),
        )


class EstimatorModule(Protocol):
    """The constant and the function an estimator module defines."""

    NEEDS_VALUES: bool
    """Whether the labels depend on the current model. They are then made anew as it learns, see
    the setting ``relabel``."""

    def label(
        self, values_BT1: Tensor | None, outcomes_B: Tensor, lengths_B: Tensor, **label_estimator_kwargs: Any
    ) -> LabelBatch:
        """Return the labels of a padded batch; row b depends on row b only, and not on its padding.

        Args:
            values_BT1: ``v_0 ... v_T`` of the current model; may be None unless ``NEEDS_VALUES``.
                Their width is also that of the result.
            outcomes_B: the outcome of each trajectory, in [0, 1]; 0 is a label like any other.
            lengths_B: T, the number of links of each trajectory.
            **label_estimator_kwargs: the estimator's settings (keyword-only parameters by name). An
                estimator with the keyword-only parameter ``links_per_action`` is also given the number
                of links from one action's value to the next: 1, or 2 with ``value_reads:
                state_and_action``. That number is data, never a setting.

        Raises:
            ConfigError: for a setting out of range, or missing values.
            DataError: for outcomes or values that cannot be.
        """
        ...


def check_kwargs(module: EstimatorModule, kwargs: Mapping[str, Any]) -> None:
    """Refuse settings the estimator does not have; the message lists those it has.

    Raises:
        ConfigError: for an unknown setting.
    """
    name = getattr(module, "__name__", str(module))
    what = f"the label estimator {name}"
    components.check_kwargs(module.label, kwargs, what, not_settings=frozenset({_LINKS}))


def make_labels(
    module: EstimatorModule,
    values_BT1: Tensor | None,
    outcomes_B: Tensor,
    lengths_B: Tensor,
    kwargs: Mapping[str, Any],
    *,
    links_per_action: int = 1,
) -> LabelBatch:
    """Call an estimator, with ``links_per_action`` if it has that parameter; see ``EstimatorModule``."""
    parameter = inspect.signature(module.label).parameters.get(_LINKS)
    if parameter is not None and parameter.kind is parameter.KEYWORD_ONLY:
        kwargs = {**kwargs, _LINKS: links_per_action}
    return module.label(values_BT1, outcomes_B, lengths_B, **kwargs)


def check_no_intermediate_reward(trajectory: Trajectory) -> None:
    """Refuse a trajectory that was rewarded before its last step.

    AgentPRM's labels are defined for an outcome at the end and no reward before. A
    reward at the last step is part of that outcome.

    Raises:
        DataError: naming the step.
    """
    for t, step in enumerate(trajectory.steps[:-1], start=1):
        if step.reward != 0.0:
            raise DataError(
                f"step {t} of {trajectory.task.environment} task {trajectory.task.id!r} has the intermediate "
                f"reward {step.reward}; AgentPRM labels are defined for an outcome at the end only"
            )


def to_step_labels(batch: LabelBatch, lengths_B: Tensor) -> list[StepLabels]:
    """Return the rows of a batch as plain values, without the padding.

    ``StepLabels`` has no weights of progress. A row whose progress weights are all 0
    therefore gets an empty ``progress``, not targets of 0.

    Raises:
        DataError: for a row with some progress weights that are neither all 0 nor all 1.
    """
    places_T1 = torch.arange(batch.promise.shape[1], device=batch.promise.device)
    lengths_B1 = lengths_B.to(batch.promise.device)[:, None]
    values_BT1, links_BT = places_T1 <= lengths_B1, places_T1[:-1] < lengths_B1
    without = _all_equal(batch.progress_weight, 0.0, links_BT)
    for row, (none, full) in enumerate(
        zip(without, _all_equal(batch.progress_weight, 1.0, links_BT), strict=True)
    ):
        if not (none or full):
            weights = sorted(set(batch.progress_weight[row][links_BT[row]].tolist()))
            raise DataError(f"row {row} has the progress weights {weights}; all 0 or all 1 can be kept")
    # Padding and weights of 1, which most numbers are, never become objects of their own.
    promise, weight = (tuple(x[values_BT1].tolist()) for x in (batch.promise, batch.promise_weight))
    progress = tuple(batch.progress[links_BT].tolist())
    ones = _all_equal(batch.promise_weight, 1.0, values_BT1)
    ones_of = [(1.0,) * count for count in range(len(places_T1) + 1)]
    labels, value, link = list[StepLabels](), 0, 0
    for count, no_progress, is_one in zip(values_BT1.sum(1).tolist(), without, ones, strict=True):
        end, last = value + count, link + max(count - 1, 0)
        labels.append(
            StepLabels(
                promise=promise[value:end],
                progress=() if no_progress else progress[link:last],
                weight=ones_of[count] if is_one else weight[value:end],
            )
        )
        value, link = end, last
    return labels


def _all_equal(x_BT: Tensor, number: float, where_BT: Tensor) -> list[bool]:
    """Return for each row whether all of its chosen entries are a number."""
    found: list[bool] = ((x_BT == number) | ~where_BT).all(1).tolist()
    return found


def from_step_labels(labels: Sequence[StepLabels]) -> LabelBatch:
    """Pad rows into a batch: the inverse of ``to_step_labels``.

    Raises:
        DataError: for a row whose parts differ in length.
    """
    width = max((len(row.promise) - 1 for row in labels), default=1)
    shape = (len(labels), max(width, 1))
    promise, promise_weight = torch.zeros(shape[0], shape[1] + 1), torch.zeros(shape[0], shape[1] + 1)
    progress, progress_weight = torch.zeros(shape), torch.zeros(shape)
    for index, row in enumerate(labels):
        values = len(row.promise)
        if values < 1 or len(row.weight) != values or len(row.progress) not in (0, values - 1):
            raise DataError(
                f"row {index} has {values} promise targets, {len(row.weight)} weights and "
                f"{len(row.progress)} progress targets; expected T+1, T+1 and T or none"
            )
        promise[index, :values] = torch.tensor(row.promise)
        promise_weight[index, :values] = torch.tensor(row.weight)
        progress[index, : len(row.progress)] = torch.tensor(row.progress)
        progress_weight[index, : len(row.progress)] = 1.0
    return LabelBatch(promise, progress, promise_weight, progress_weight)
