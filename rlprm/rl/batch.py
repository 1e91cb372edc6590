"""Trajectories as one padded batch: the shapes that rewards, advantages and updates work on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlprm.data.batching import pad_right
from rlprm.data.failures import has_failed, require_exact
from rlprm.functional.tokens import TokenLayout, token_layout
from rlprm.labels import check_no_intermediate_reward
from rlprm.types import StepScores, Trajectory

__all__ = ["Batch", "PRMValues", "prm_values", "split_failed"]


@dataclass(frozen=True, eq=False)
class Batch:
    """All episodes of one iteration, on the CPU, padded on the right."""

    token_ids_BL: Tensor
    """Zeros in the padding."""
    widths_B: tuple[int, ...]
    """Number of tokens of each row."""
    sampler_logprobs_BL: Tensor
    """As the sampler computed them; 0 at tokens it did not sample."""
    layout: TokenLayout
    starts_BT: Tensor
    """Position of the first token of each action; 0 in the padding."""
    lengths_B: Tensor
    """Number of steps."""
    outcomes_B: Tensor
    success_B: Tensor
    truncated_B: Tensor
    """Boolean: stopped by a limit."""
    groups_B: Tensor
    """Equal for the rollouts of one task."""

    @classmethod
    def from_trajectories(cls, trajectories: Sequence[Trajectory], *, outcome: str = "success") -> Batch:
        """Lay out trajectories, each with at least one step.

        Args:
            trajectories: finished, none failed.
            outcome: ``success`` (0 or 1) or ``score`` (graded), as what is learned from.

        Raises:
            ConfigError: for another name of an outcome.
            DataError: for a reward before the last step, which no estimator here uses.
            MismatchError: for tokens that were made from text.
        """
        for trajectory in trajectories:
            require_exact(trajectory, "agent RL")
            check_no_intermediate_reward(trajectory)
        starts_BT = pad_right([[step.start for step in t.steps] for t in trajectories], 0)
        ends_BT = pad_right([[step.end for step in t.steps] for t in trajectories], 0)
        lengths_B = torch.tensor([len(t.steps) for t in trajectories])
        mask_BL = pad_right([t.action_mask for t in trajectories], 0)
        numbers: dict[str, int] = {}
        groups = [numbers.setdefault(t.task.id, len(numbers)) for t in trajectories]
        width = mask_BL.shape[1]
        return cls(
            token_ids_BL=pad_right([t.token_ids for t in trajectories], 0),
            widths_B=tuple(len(t.token_ids) for t in trajectories),
            sampler_logprobs_BL=torch.tensor(
                [[*t.logprobs, *[0.0] * (width - len(t.logprobs))] for t in trajectories]
            ),
            layout=token_layout(mask_BL, starts_BT, ends_BT, lengths_B),
            starts_BT=starts_BT,
            lengths_B=lengths_B,
            outcomes_B=torch.tensor([t.outcome.value(outcome) for t in trajectories]),
            success_B=torch.tensor([t.outcome.success for t in trajectories]),
            truncated_B=torch.tensor([bool(t.stop and t.stop.is_truncation) for t in trajectories]),
            groups_B=torch.tensor(groups),
        )

    def __len__(self) -> int:
        return len(self.widths_B)


@dataclass(frozen=True, eq=False)
class PRMValues:
    """A PRM's values of a batch, padded with zeros."""

    values_BT1: Tensor
    """``v_0 ... v_T``."""
    states_BT: Tensor | None
    """``x_1 ... x_T`` if the PRM reads states too."""


def prm_values(scores: Sequence[StepScores]) -> PRMValues:
    """Lay out the scores of a batch's trajectories."""
    values = _pad([[s.initial, *s.values] for s in scores])
    states = _pad([s.states for s in scores]) if scores[0].states else None
    return PRMValues(values, states)


def split_failed(trajectories: Sequence[Trajectory]) -> tuple[list[Trajectory], list[Trajectory]]:
    """Return the trajectories to learn from and the failed ones, which carry no information on the policy."""
    usable = [t for t in trajectories if t.steps and not has_failed(t)]
    failed = [t for t in trajectories if not t.steps or has_failed(t)]
    return usable, failed


def _pad(rows: Sequence[Sequence[float]]) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[0.0] * (width - len(row))] for row in rows])
