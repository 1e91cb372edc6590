"""Between numbers of steps (B, T) and numbers of the tokens their actions are made of (B, L).

Only tokens that the policy sampled (action mask 1) belong to a step. A closing token
that was forced (mask 0) is inside the step, but the policy did not choose it. It gets no
advantage, and the reward of the step is on the last token that was sampled. Entry l
of a ``_BL`` tensor is about token l itself, also where the number was read at the
position before it (as log-probabilities are).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rlprm.errors import DataError
from rlprm.functional._checks import check_lengths, check_shape
from rlprm.functional.masking import length_mask

__all__ = [
    "TokenLayout",
    "put_on_first_tokens",
    "put_on_last_tokens",
    "spread_over_tokens",
    "sum_over_tokens",
    "token_layout",
]


class TokenLayout(NamedTuple):
    """Which token belongs to which step."""

    step_BL: Tensor
    """(B, L), integer: the column (from 0) of the step that token l was sampled for; -1 for all others."""
    last_BT: Tensor
    """(B, T), integer: the position of the last sampled token of each step; -1 in the padding."""

    @property
    def sampled(self) -> Tensor:
        """(B, L), boolean: the tokens that were sampled."""
        return self.step_BL >= 0


def token_layout(
    action_mask_BL: Tensor, starts_BT: Tensor, ends_BT: Tensor, lengths_B: Tensor
) -> TokenLayout:
    """Find the step of every sampled token, and the last sampled token of every step.

    Args:
        action_mask_BL: 1 where the policy sampled the token; 0 elsewhere, padding included.
        starts_BT: index of each step's first token (``Step.start``); anything in the padding.
        ends_BT: index of each step's closing token, inclusive (``Step.end``); anything in the padding.
        lengths_B: number of steps of each row.

    Raises:
        DataError: for a sampled token outside of all steps, or a step without any: its
            advantage would have nowhere to go.
        ValueError: for shapes that do not belong together, or steps out of order.
    """
    rows, tokens = action_mask_BL.shape
    steps = starts_BT.shape[-1]
    check_shape("starts_BT", starts_BT, (rows, steps))
    check_shape("ends_BT", ends_BT, (rows, steps))
    check_lengths(lengths_B, rows, steps)
    exists_BT = length_mask(lengths_B, steps)
    starts_BT, ends_BT = starts_BT.where(exists_BT, tokens), ends_BT.where(exists_BT, tokens)
    follows_BT = torch.cat([torch.full_like(ends_BT[:, :1], -1), ends_BT[:, :-1]], dim=1) < starts_BT
    in_order_BT = follows_BT & (starts_BT <= ends_BT) & (ends_BT < tokens)
    if not in_order_BT[exists_BT].all():
        row, step = (int(index) for index in (exists_BT & ~in_order_BT).nonzero()[0])
        raise ValueError(
            f"step {step + 1} of row {row} runs from token {int(starts_BT[row, step])} to "
            f"{int(ends_BT[row, step])} of {tokens}, expected steps in order and apart"
        )

    # +1 where a step begins, -1 behind its end: the running sum tells inside from outside.
    ones_BT = exists_BT.to(torch.long)
    begins_BL = _count(starts_BT, ones_BT, tokens + 1)
    inside_BL = (begins_BL - _count(ends_BT + 1, ones_BT, tokens + 2)[:, :-1]).cumsum(1)[:, :-1] > 0
    step_BL = begins_BL.cumsum(1)[:, :-1] - 1
    sampled_BL = action_mask_BL != 0
    if (sampled_BL & ~inside_BL).any():
        row, token = (int(index) for index in (sampled_BL & ~inside_BL).nonzero()[0])
        raise DataError(f"token {token} of row {row} was sampled but belongs to no step")
    step_BL = step_BL.where(sampled_BL, -1)

    position_BL = torch.arange(tokens, device=step_BL.device).expand(rows, tokens).where(sampled_BL, -1)
    none_BT = torch.full_like(starts_BT, -1)
    last_BT = none_BT.scatter_reduce(1, step_BL.clamp(min=0), position_BL, "amax")
    if (exists_BT & (last_BT < 0)).any():
        row, step = (int(index) for index in (exists_BT & (last_BT < 0)).nonzero()[0])
        raise DataError(f"step {step + 1} of row {row} has no token that the policy sampled")
    return TokenLayout(step_BL, last_BT)


def _count(positions_BT: Tensor, ones_BT: Tensor, width: int) -> Tensor:
    """Return (B, width): how many of the positions are equal to each column."""
    counts_BL = torch.zeros(len(positions_BT), width, dtype=torch.long, device=positions_BT.device)
    return counts_BL.scatter_add(1, positions_BT.clamp(max=width - 1), ones_BT)


def spread_over_tokens(x_BT: Tensor, layout: TokenLayout) -> Tensor:
    """Give each sampled token the number of its step; 0 elsewhere (B, L).

    Not divided by the number of tokens: ``Σ_l A_l log π(token l)`` over a step is then
    ``A_t log π(action t)``, the turn's term of the policy gradient.
    """
    check_shape("x_BT", x_BT, tuple(layout.last_BT.shape))
    return x_BT.gather(1, layout.step_BL.clamp(min=0)).where(layout.sampled, 0.0)


def put_on_first_tokens(x_BT: Tensor, layout: TokenLayout, starts_BT: Tensor) -> Tensor:
    """Put the number of each step on the first token of its action; 0 elsewhere (B, L).

    Args:
        x_BT: one number for each step.
        layout: of the batch.
        starts_BT: index of each step's first token (``Step.start``), which is always a sampled one;
            anything in the padding.
    """
    check_shape("x_BT", x_BT, tuple(layout.last_BT.shape))
    check_shape("starts_BT", starts_BT, tuple(layout.last_BT.shape))
    exists_BT = layout.last_BT >= 0
    zeros_BL = x_BT.new_zeros(layout.step_BL.shape)
    return zeros_BL.scatter_add(1, starts_BT.where(exists_BT, 0), x_BT.where(exists_BT, 0.0))


def put_on_last_tokens(x_BT: Tensor, layout: TokenLayout) -> Tensor:
    """Put the number of each step on its last sampled token; 0 elsewhere (B, L)."""
    check_shape("x_BT", x_BT, tuple(layout.last_BT.shape))
    exists_BT = layout.last_BT >= 0
    zeros_BL = x_BT.new_zeros(layout.step_BL.shape)
    return zeros_BL.scatter_add(1, layout.last_BT.clamp(min=0), x_BT.where(exists_BT, 0.0))


def sum_over_tokens(x_BL: Tensor, layout: TokenLayout) -> Tensor:
    """Sum the numbers of each step's sampled tokens, such as their log-probabilities (B, T)."""
    check_shape("x_BL", x_BL, tuple(layout.step_BL.shape))
    zeros_BT = x_BL.new_zeros(layout.last_BT.shape)
    return zeros_BT.scatter_add(1, layout.step_BL.clamp(min=0), x_BL.where(layout.sampled, 0.0))
