"""Keys and values are kept across turns, in one cache with holes: the fastest way, for full attention.

A row that ends its action early gets columns with mask 0 while the others go on, and stays in the cache. The
way is wrong for a model that counts cache columns (a sliding window), or keeps a state instead of columns.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlprm.models.kv_cache.prefix_cache import PrefixCache
from rlprm.policies.decoding.base import Contexts, Decoded, Draw, sample_actions

__all__ = ["KeptCache"]


class KeptCache:
    """Feeds what was appended since the call before.

    Args:
        closing_id: may have been forced after an action, so the kept part ends before it.
        keeps: False feeds every context from its first token; the reference of tests.
        call_tokens: see :class:`~rlprm.models.kv_cache.prefix_cache.PrefixCache`.
    """

    shares_contexts = True

    def __init__(self, closing_id: int, *, keeps: bool = True, call_tokens: float | None = None) -> None:
        self.closing_id, self.keeps = closing_id, keeps
        self._prefixes = PrefixCache(call_tokens=call_tokens)

    def decode(self, model: PreTrainedModel, contexts: Contexts, draw: Draw) -> Decoded:
        """See :class:`~rlprm.policies.decoding.base.Decoder`."""
        done = self._prefixes.extend(
            model, contexts.unique, contexts.known, pad_id=draw.pad_id, logits_to_keep=1
        )
        expand = torch.tensor(contexts.row_of, device=done.mask_BL.device)
        if len(contexts.unique) < len(contexts.row_of):
            done.cache.batch_select_indices(expand)
        mask_BL, lengths_B = done.mask_BL[expand], done.mask_BL.sum(1)[expand]

        def step(next_B: Tensor, alive_B: Tensor) -> Tensor:
            nonlocal mask_BL, lengths_B
            mask_BL = torch.cat([mask_BL, alive_B[:, None]], dim=1)
            logits_BV: Tensor = model(
                input_ids=next_B[:, None],
                attention_mask=mask_BL.long(),
                position_ids=lengths_B[:, None],
                past_key_values=done.cache,
                use_cache=True,
            ).logits[:, -1]
            lengths_B = lengths_B + alive_B
            return logits_BV

        ids, logprobs, mask = sample_actions(done.logits[expand, -1], step, draw)
        if self.keeps:
            sequences = [
                [*contexts.unique[row], *self._without_closing(said)]
                for row, said in zip(contexts.row_of, ids, strict=True)
            ]
            self._prefixes.keep(done.cache, mask_BL, sequences)
        return Decoded(ids, logprobs, mask, list(done.fed_B), [len(said) - 1 for said in ids])

    def clear(self) -> None:
        """Drop the kept keys and values."""
        self._prefixes.clear()

    def _without_closing(self, ids: list[int]) -> list[int]:
        return ids[:-1] if ids[-1] == self.closing_id else ids
