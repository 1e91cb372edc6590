"""Branches of a sequence side by side in one row, so that the keys and values before them are never copied.

A token sees the columns of its stem and the tokens of its own branch. That is a tree mask. It has four
dimensions, with a row for each token that is fed. Positions count along each branch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

__all__ = ["additive", "feed_branches"]


def feed_branches(
    model: PreTrainedModel,
    cache: Cache,
    stem_mask_RL: Tensor,
    stem_of: Sequence[int],
    suffixes: Sequence[Sequence[int]],
    *,
    pad_id: int,
    **model_kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Feed the tokens of B branches behind the R stems of a cache.

    Args:
        model: a decoder for which a tree mask is right (``rlprm.models.kv_cache.support``).
        cache: one row for each stem; the tokens of all branches of a stem are appended to its row.
        stem_mask_RL: True where a column of the cache holds a token of the stem.
        stem_of: the stem of each branch; every stem has a branch.
        suffixes: token ids of each branch behind its stem, at least one.
        pad_id: pads rows.
        **model_kwargs: passed on to the model.

    Returns:
        The outputs (B, K, ...) at the tokens of each branch, which stand on the right. Then (B, L), which is
        True where a column of the stem's row holds a token of the branch.
    """
    device = stem_mask_RL.device
    rows = len(stem_mask_RL)
    tokens: list[list[int]] = [[] for _ in range(rows)]
    branch: list[list[int]] = [[] for _ in range(rows)]
    depth: list[list[int]] = [[] for _ in range(rows)]
    begins = []
    for index, (stem, suffix) in enumerate(zip(stem_of, suffixes, strict=True)):
        begins.append(len(tokens[stem]))
        tokens[stem] += suffix
        branch[stem] += [index] * len(suffix)
        depth[stem] += range(len(suffix))
    width = max(map(len, tokens))
    ids_RQ, branch_RQ, depth_RQ = (
        torch.tensor([[*row, *[fill] * (width - len(row))] for row in lists], device=device)
        for lists, fill in ((tokens, pad_id), (branch, -1), (depth, 0))
    )
    earlier_QQ = torch.ones(width, width, dtype=torch.bool, device=device).tril()
    own_RQQ = (branch_RQ[:, :, None] == branch_RQ[:, None]) & earlier_QQ
    sees_RQL = torch.cat([stem_mask_RL[:, None].expand(-1, width, -1), own_RQQ], dim=2)
    output = model(
        input_ids=ids_RQ,
        attention_mask=additive(sees_RQL, model.dtype),
        position_ids=stem_mask_RL.sum(1)[:, None] + depth_RQ,
        past_key_values=cache,
        use_cache=True,
        **model_kwargs,
    )
    outputs = output.logits if hasattr(output, "logits") else output.last_hidden_state
    stem_B = torch.tensor(list(stem_of), device=device)
    own_BQ = branch_RQ[stem_B] == torch.arange(len(suffixes), device=device)[:, None]
    ends_B = torch.tensor([at + len(suffix) for at, suffix in zip(begins, suffixes, strict=True)])
    longest = max(map(len, suffixes))
    columns_BK = (ends_B[:, None] - longest + torch.arange(longest)).clamp(min=0).to(device)
    return outputs[stem_B[:, None], columns_BK], torch.cat([stem_mask_RL[stem_B], own_BQ], dim=1)


def additive(sees_RQL: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a mask (R, 1, Q, L) that all implementations of attention add to their scores."""
    hidden = torch.zeros(sees_RQL.shape, dtype=dtype, device=sees_RQL.device)
    return hidden.masked_fill_(~sees_RQL, torch.finfo(dtype).min)[:, None]
