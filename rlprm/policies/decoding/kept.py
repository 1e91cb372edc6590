"""Keys and values are kept across turns, in one cache with holes: the fastest way, for full attention.

A row that ends its action early gets columns with mask 0 while the others go on, and stays in the cache. The
way is wrong for a model that counts cache columns (a sliding window), or keeps a state instead of columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlprm.models.kv_cache.prefix_cache import Extended, PrefixCache
from rlprm.models.kv_cache.tree import additive
from rlprm.policies.decoding.base import Contexts, Decoded, Draw, sample_actions

__all__ = ["KeptCache"]


class KeptCache:
    """Feeds what was appended since the call before.

    Args:
        closing_id: may have been forced after an action, so the kept part ends before it.
        keeps: False feeds every context from its first token; the reference of tests.
        call_tokens: see :class:`~rlprm.models.kv_cache.prefix_cache.PrefixCache`.
        trees: whether a tree mask is right for the model. Actions of one context then share its row, and the
            row is not copied.
    """

    shares_contexts = True

    def __init__(
        self, closing_id: int, *, keeps: bool = True, call_tokens: float | None = None, trees: bool = False
    ) -> None:
        self.closing_id, self.keeps, self.trees = closing_id, keeps, trees
        self._prefixes = PrefixCache(call_tokens=call_tokens)

    def decode(self, model: PreTrainedModel, contexts: Contexts, draw: Draw) -> Decoded:
        """See :class:`~rlprm.policies.decoding.base.Decoder`."""
        done = self._prefixes.extend(
            model, contexts.unique, contexts.known, pad_id=draw.pad_id, logits_to_keep=1
        )
        rows_B = torch.tensor(contexts.row_of, device=done.mask_BL.device)
        grid = _grid(contexts.row_of) if self.trees else None
        rows = _InRows(model, done, rows_B) if grid is None else _InTrees(model, done, rows_B, grid)
        ids, logprobs, mask = sample_actions(done.logits[rows_B, -1], rows.step, draw)
        if self.keeps:
            sequences = [
                [*contexts.unique[row], *self._without_closing(said)]
                for row, said in zip(contexts.row_of, ids, strict=True)
            ]
            self._prefixes.keep(
                done.cache, rows.mask_BL, sequences, rows=None if grid is None else contexts.row_of
            )
        return Decoded(ids, logprobs, mask, list(done.fed_B), [len(said) - 1 for said in ids])

    def clear(self) -> None:
        """Drop the kept keys and values."""
        self._prefixes.clear()

    def _without_closing(self, ids: list[int]) -> list[int]:
        return ids[:-1] if ids[-1] == self.closing_id else ids


class _InRows:
    """The tokens of each action in a row of its own."""

    def __init__(self, model: PreTrainedModel, done: Extended, rows_B: Tensor) -> None:
        self.model, self.cache = model, done.cache
        if len(done.mask_BL) < len(rows_B):
            self.cache.batch_select_indices(rows_B)
        self.mask_BL, self.lengths_B = done.mask_BL[rows_B], done.mask_BL.sum(1)[rows_B]

    def step(self, next_B: Tensor, alive_B: Tensor) -> Tensor:
        """See :func:`~rlprm.policies.decoding.base.sample_actions`."""
        self.mask_BL = torch.cat([self.mask_BL, alive_B[:, None]], dim=1)
        logits_BV: Tensor = self.model(
            input_ids=next_B[:, None],
            attention_mask=self.mask_BL.long(),
            position_ids=self.lengths_B[:, None],
            past_key_values=self.cache,
            use_cache=True,
        ).logits[:, -1]
        self.lengths_B = self.lengths_B + alive_B
        return logits_BV


class _InTrees:
    """The tokens of all actions of a context in its row; each action sees the context and its own tokens.

    Args:
        model: writes.
        done: the R contexts.
        rows_B: the context of each action.
        grid: (R, M): the actions of each context, filled up with one of them.
    """

    def __init__(
        self, model: PreTrainedModel, done: Extended, rows_B: Tensor, grid: Sequence[Sequence[int]]
    ) -> None:
        self.model, self.cache, self.rows_B = model, done.cache, rows_B
        self.grid_RM = torch.tensor(grid, device=rows_B.device)
        place_of = {action: place for actions in grid for place, action in reversed(list(enumerate(actions)))}
        self.places_B = torch.tensor([place_of[i] for i in range(len(rows_B))], device=rows_B.device)
        self.mask_BL, self.lengths_B = done.mask_BL[rows_B], done.mask_BL.sum(1)[rows_B]

    def step(self, next_B: Tensor, alive_B: Tensor) -> Tensor:
        """See :func:`~rlprm.policies.decoding.base.sample_actions`."""
        width = self.grid_RM.shape[1]
        own_BM = nn.functional.one_hot(self.places_B, width).bool() & alive_B[:, None]
        self.mask_BL = torch.cat([self.mask_BL, own_BM], dim=1)
        logits_RMV: Tensor = self.model(
            input_ids=next_B[self.grid_RM],
            attention_mask=additive(self.mask_BL[self.grid_RM], self.model.dtype),
            position_ids=self.lengths_B[self.grid_RM],
            past_key_values=self.cache,
            use_cache=True,
        ).logits
        self.lengths_B = self.lengths_B + alive_B
        return logits_RMV[self.rows_B, self.places_B]


def _grid(row_of: Sequence[int]) -> list[list[int]] | None:
    """Return the actions of each context, filled up with their first; None if rows of their own cost less.

    That is so if no context has two actions, or if more than half of the grid would be filling.
    """
    actions: list[list[int]] = [[] for _ in range(max(row_of) + 1)]
    for action, row in enumerate(row_of):
        actions[row].append(action)
    width = max(map(len, actions))
    if width == 1 or len(actions) * width > 2 * len(row_of):
        return None
    return [of_row + of_row[:1] * (width - len(of_row)) for of_row in actions]
