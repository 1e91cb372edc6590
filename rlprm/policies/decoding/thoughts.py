"""A limit of thoughts: after so many tokens of a thought, the end of the thought is written for the model.

The decision depends on the tokens of a row only. Every way of decoding therefore ends the same thoughts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlprm.data.rendering import ChatRenderer
from rlprm.errors import ConfigError

__all__ = ["ThoughtEnding", "ThoughtLimit", "thought_limit"]

_NAME = "max_thinking_tokens"


@dataclass(frozen=True)
class ThoughtLimit:
    """When a thought is ended, and with which tokens."""

    tokens: int
    """Most tokens of a thought. Its markers do not count."""
    end_ids: Tensor
    """(E,), the tokens that are forced."""
    close_id: int
    """The token with which a model ends a thought itself."""
    open_id: int | None
    """The token that opens a thought; None if the generation prompt has opened it."""
    is_blank_V: Tensor
    """(V,), boolean: white space, which may stand before the opening token. The last entry stands for all
    larger ids."""


class ThoughtEnding:
    """Where the rows of a batch stand in their thoughts.

    Args:
        limit: of all rows.
        rows: number of rows.
        device: of the tokens.
    """

    def __init__(self, limit: ThoughtLimit, rows: int, device: torch.device) -> None:
        self.limit = limit
        self._end_E, self._is_blank_V = limit.end_ids.to(device), limit.is_blank_V.to(device)
        opened = limit.open_id is None
        self._waits_B = torch.full((rows,), not opened, device=device)
        self._inside_B = torch.full((rows,), opened, device=device)
        self._count_B = torch.zeros(rows, dtype=torch.long, device=device)
        self._next_B = torch.full((rows,), len(self._end_E), device=device)  # of the end; beyond it: none

    def next(self, drawn_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next tokens and which of them are forced, both (B,), given the drawn tokens (B,)."""
        limit, length = self.limit, len(self._end_E)
        due_B = self._inside_B & (self._count_B >= limit.tokens)
        self._next_B = self._next_B.where(~due_B, 0)
        forced_B = self._next_B < length
        ids_B = drawn_B.where(~forced_B, self._end_E[self._next_B.clamp(max=length - 1)])
        self._next_B = self._next_B + forced_B
        goes_on_B = self._inside_B & ~forced_B & (ids_B != limit.close_id)
        self._count_B = self._count_B + goes_on_B
        self._inside_B = goes_on_B
        if limit.open_id is not None:
            self._inside_B = self._inside_B | (self._waits_B & (ids_B == limit.open_id))
            self._waits_B = self._waits_B & self._is_blank_V[ids_B.clamp(max=len(self._is_blank_V) - 1)]
        return ids_B, forced_B


def thought_limit(renderer: ChatRenderer, tokens: int, max_new_tokens: int) -> ThoughtLimit:
    """Return a limit for the messages of a model.

    Args:
        renderer: of the model.
        tokens: most tokens of a thought.
        max_new_tokens: most tokens of a message, of which the end of the thought takes its part.

    Raises:
        ConfigError: if the model does not think, a thought has no closing token, or nothing would be left for
            the action.
    """
    thoughts = renderer.thoughts
    if isinstance(thoughts, str):
        raise ConfigError(f"{_NAME}: got {tokens}, allowed: none for this model, because {thoughts}")
    most = max_new_tokens - len(thoughts.end_ids) - (not thoughts.opened) - 1
    if tokens > most:
        raise ConfigError(
            f"{_NAME}: got {tokens}, allowed: up to {most}, which leaves a token of max_new_tokens "
            f"{max_new_tokens} for the action"
        )
    is_blank_V = torch.zeros(1 if thoughts.opened else len(renderer.tokenizer) + 1, dtype=torch.bool)
    if not thoughts.opened:
        is_blank_V[list(renderer.blank_tokens)] = True
    return ThoughtLimit(
        tokens=tokens,
        end_ids=torch.tensor(thoughts.end_ids),
        close_id=thoughts.close_id,
        open_id=None if thoughts.opened else thoughts.open_id,
        is_blank_V=is_blank_V,
    )
