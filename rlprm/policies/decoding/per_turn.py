"""The model's own cache, for one turn: whatever the architecture keeps, transformers knows how to feed it.

``model.generate`` drives the model, and a logits processor draws the tokens. Rows of different lengths are
padded on the left. Some architectures read the padding in spite of the mask; their rows are decoded in groups
of one length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from rlprm.models.unwrap import unwrapped
from rlprm.policies.decoding.base import Contexts, Decoded, Draw, Drawn

__all__ = ["TurnCache"]


class TurnCache:
    """Feeds every context from its first token.

    Args:
        padded: False decodes rows of one length at a time.
    """

    shares_contexts = False

    def __init__(self, *, padded: bool) -> None:
        self.padded = padded

    def decode(self, model: PreTrainedModel, contexts: Contexts, draw: Draw) -> Decoded:
        """See :class:`~rlprm.policies.decoding.base.Decoder`."""
        rows = [contexts.unique[row] for row in contexts.row_of]
        groups = [list(range(len(rows)))] if self.padded else _by_length(rows)
        ids: list[list[int]] = [[] for _ in rows]
        logprobs: list[list[float]] = [[] for _ in rows]
        mask: list[list[int]] = [[] for _ in rows]
        for group in groups:
            found = _generate(model, [rows[i] for i in group], _of_rows(draw, group))
            for i, said, of_said, drawn in zip(group, *found, strict=True):
                ids[i], logprobs[i], mask[i] = said, of_said, drawn
        return Decoded(
            ids, logprobs, mask, [len(c) for c in contexts.unique], [len(said) - 1 for said in ids]
        )

    def clear(self) -> None:
        """Nothing is kept."""


class _Drawing(LogitsProcessor):
    """Draws a token and leaves no other."""

    def __init__(self, draw: Draw) -> None:
        self.drawn = Drawn(draw)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        ids_B = self.drawn.next(scores)
        only_BV = torch.full_like(scores, -torch.inf)
        return only_BV.scatter_(1, ids_B[:, None], 0.0)


def _generate(
    model: PreTrainedModel, rows: Sequence[Sequence[int]], draw: Draw
) -> tuple[list[list[int]], list[list[float]], list[list[int]]]:
    width = max(map(len, rows))
    ids_BL = torch.tensor([[draw.pad_id] * (width - len(row)) + list(row) for row in rows])
    mask_BL = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    # Without a mask the library takes every pad id for padding, in the middle of a text, too.
    inputs = {"input_ids": ids_BL.to(model.device), "attention_mask": mask_BL.to(model.device)}
    drawing = _Drawing(draw)
    with _plain_generation(model):
        model.generate(
            **inputs,
            logits_processor=LogitsProcessorList([drawing]),
            max_new_tokens=draw.uniforms_BK.shape[1],
            eos_token_id=draw.ends.tolist(),
            pad_token_id=draw.pad_id,
            do_sample=False,
            use_cache=True,
        )
    ids_BK = torch.stack(drawing.drawn.ids, 1)
    ended_BK = torch.isin(ids_BK, draw.ends.to(ids_BK.device))
    before_BK = ended_BK.long().cumsum(1) - ended_BK.long()  # ends before each token
    return drawing.drawn.rows((before_BK == 0).sum(1))


@contextmanager
def _plain_generation(model: PreTrainedModel) -> Iterator[None]:
    """Hide the model's own generation settings, whose penalties would change the distribution."""
    inner: Any = unwrapped(model)
    own = inner.generation_config
    inner.generation_config = GenerationConfig()
    try:
        yield
    finally:
        inner.generation_config = own


def _by_length(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    groups: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(len(row), []).append(index)
    return list(groups.values())


def _of_rows(draw: Draw, rows: Sequence[int]) -> Draw:
    return replace(draw, uniforms_BK=draw.uniforms_BK[list(rows)])
