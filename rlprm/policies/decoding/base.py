"""What a way to decode is, and how a token is drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlprm.errors import DataError
from rlprm.policies.decoding.thoughts import ThoughtEnding, ThoughtLimit

__all__ = ["Contexts", "Decoded", "Decoder", "Draw", "Drawn", "sample", "sample_actions"]


@dataclass(frozen=True)
class Contexts:
    """What stands before the actions of a batch."""

    unique: Sequence[Sequence[int]]
    """Token ids of the different contexts."""
    row_of: Sequence[int]
    """For each of the B actions, which context it continues."""
    known: Sequence[Sequence[int] | None]
    """A proper prefix of each context that may have been written by the call before, or None."""


@dataclass(frozen=True)
class Draw:
    """How the tokens of a batch of actions are drawn."""

    uniforms_BK: Tensor
    """Numbers in [0, 1); column k decides the k-th token. K is the length limit."""
    temperature: float
    """Of the sampling distribution; 0 is greedy."""
    ends: Tensor
    """Ids that end an action."""
    pad_id: int
    thoughts: ThoughtLimit | None = None
    """When a thought is ended; None never ends one."""

    def next_tokens(self, logits_BV: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Draw the k-th tokens; return ids and log-probabilities, both (B,)."""
        return sample(logits_BV, self.uniforms_BK[:, k].to(logits_BV.device), self.temperature)


class Decoded(NamedTuple):
    """The actions of a batch."""

    ids: list[list[int]]
    """Of each action, the end included."""
    logprobs: list[list[float]]
    """0 for a forced token."""
    mask: list[list[int]]
    """1 for a token that was drawn, 0 for one that was forced."""
    context_fed: list[int]
    """Tokens of each unique context that went through a forward."""
    action_fed: list[int]
    """Tokens that went through a forward after an action's first token was drawn."""


class Decoder(Protocol):
    """A way to decode."""

    shares_contexts: bool
    """Whether a context of several actions goes through a forward once."""

    def decode(self, model: PreTrainedModel, contexts: Contexts, draw: Draw) -> Decoded:
        """Sample an action for each row.

        Raises:
            DataError: if the model's output is not finite.
        """
        ...

    def clear(self) -> None:
        """Drop whatever is kept from one call to the next."""
        ...


def sample(logits_BV: Tensor, uniform_B: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Draw one token per row by inverting the cumulative distribution at a given uniform number.

    Args:
        logits_BV: next-token logits.
        uniform_B: numbers in [0, 1).
        temperature: divides the logits; 0 takes the largest and ignores ``uniform_B``.

    Returns:
        Token ids (B,) and their log-probabilities (B,) under ``softmax(logits / temperature)``,
        or under ``softmax(logits)`` where ``temperature`` is 0.
    """
    logits_BV = logits_BV.float()
    logprobs_BV = torch.log_softmax(logits_BV / temperature if temperature > 0 else logits_BV, dim=-1)
    if temperature > 0:
        cumulative_BV = logprobs_BV.exp().cumsum(-1)
        threshold_B1 = (uniform_B * cumulative_BV[:, -1])[:, None]
        ids_B = torch.searchsorted(cumulative_BV, threshold_B1, right=True).squeeze(1)
        ids_B = ids_B.clamp(max=logits_BV.shape[1] - 1)
    else:
        ids_B = logprobs_BV.argmax(-1)
    return ids_B, logprobs_BV.gather(1, ids_B[:, None]).squeeze(1)


class Drawn:
    """The tokens of a batch of actions while they are written, column by column.

    Args:
        draw: how tokens are drawn.
    """

    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.ids: list[Tensor] = []
        self.logprobs: list[Tensor] = []
        self.forced: list[Tensor] = []
        self._ending: ThoughtEnding | None = None

    def next(self, logits_BV: Tensor) -> Tensor:
        """Return the next token (B,) of each row: one that is drawn, or one that ends a thought."""
        ids_B, logprobs_B = self.draw.next_tokens(logits_BV, len(self.ids))
        if self.draw.thoughts is not None:
            if self._ending is None:
                self._ending = ThoughtEnding(self.draw.thoughts, len(ids_B), ids_B.device)
            ids_B, forced_B = self._ending.next(ids_B)
            logprobs_B = logprobs_B.where(~forced_B, 0.0)
        else:
            forced_B = torch.zeros_like(ids_B, dtype=torch.bool)
        self.ids.append(ids_B)
        self.logprobs.append(logprobs_B)
        self.forced.append(forced_B)
        return ids_B

    def rows(self, counts_B: Tensor) -> tuple[list[list[int]], list[list[float]], list[list[int]]]:
        """Return ids, log-probabilities and mask of the first tokens of each row, as many as counted.

        Raises:
            DataError: if the model's output is not finite.
        """
        mask_BK = (~torch.stack(self.forced, 1)).long()
        columns = (torch.stack(self.ids, 1), torch.stack(self.logprobs, 1), mask_BK)
        counts = counts_B.tolist()
        ids, logprobs, mask = (
            [row[:n] for row, n in zip(x_BK.tolist(), counts, strict=True)] for x_BK in columns
        )
        if not all(map(math.isfinite, chain.from_iterable(logprobs))):
            raise DataError(
                "the policy's logits are not finite: its weights are damaged, or need dtype float32"
            )
        return ids, logprobs, mask


def sample_actions(
    logits_BV: Tensor, step: Callable[[Tensor, Tensor], Tensor], draw: Draw
) -> tuple[list[list[int]], list[list[float]], list[list[int]]]:
    """Draw tokens until every row has ended its action or reached the limit.

    Args:
        logits_BV: after the contexts.
        step: takes the tokens just drawn (B,) and which rows go on (B,), returns the next logits.
        draw: how tokens are drawn.

    Returns:
        Ids, log-probabilities and mask of each row, see :class:`Decoded`.

    Raises:
        DataError: if the model's output is not finite.
    """
    rows, limit = draw.uniforms_BK.shape
    alive_B = torch.ones(rows, dtype=torch.bool, device=logits_BV.device)
    ends = draw.ends.to(logits_BV.device)
    drawn = Drawn(draw)
    counts_B = torch.zeros(rows, dtype=torch.long, device=logits_BV.device)
    for k in range(limit):
        next_B = drawn.next(logits_BV)
        counts_B += alive_B
        alive_B = alive_B & ~torch.isin(next_B, ends)
        if k + 1 == limit or not bool(alive_B.any()):
            break
        logits_BV = step(next_B, alive_B)
    return drawn.rows(counts_B)
