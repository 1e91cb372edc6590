"""Values of a reward model or critic, whatever its head: one number at each chosen position."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlprm.data.batching import pad_right
from rlprm.models.heads.lm_head import LMHead
from rlprm.models.heads.value_positions import ValuePosition
from rlprm.models.unwrap import unwrapped
from rlprm.models.zero import is_split


class _Float32Linear(nn.Linear):
    """A linear layer that computes in float32, even under autocast or with bfloat16 weights (DeepSpeed).

    The class adds no attribute, so copies and saved weights equal those of a plain layer.
    """

    def forward(self, input: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.float()
        with torch.autocast(input.device.type, enabled=False):
            return nn.functional.linear(input.float(), self.weight.float(), bias)


def compute_in_float32(head: nn.Module) -> None:
    """Make a linear head compute in float32, whatever the precision of the body.

    bfloat16 has 8 significant bits: values around 0.8 would be multiples of 1/256. One step changes
    a value by about as much, and the progress loss is made of such changes.
    """
    if not any(map(is_split, head.parameters())):  # DeepSpeed has one dtype for all weights
        head.to(torch.float32)
    if type(head) is nn.Linear:
        head.__class__ = _Float32Linear


def read_logits(model: nn.Module, token_ids_BL: Tensor, positions_BP5: Tensor) -> Tensor:
    """Return the head's raw outputs at P positions of each row.

    One causal forward serves all positions of a row. No attention mask is needed: rows are padded on
    the right, causal attention never looks at later tokens, and without a mask the fast attention
    kernels apply. ``use_cache=False`` matters because some versions of transformers treat
    a batch differently if it fills a cache.

    Args:
        model: a token classification model with one label, or one with an lm head.
        token_ids_BL: (B, L), padded on the right.
        positions_BP5: (B, P, 5), each a ``ValuePosition``; the padding may be any position.

    Returns:
        (B, P) in at least float32.
    """
    if isinstance(unwrapped(model), LMHead):
        values_BP: Tensor = model(input_ids=token_ids_BL, positions=positions_BP5)
        return values_BP
    logits_BL = model(input_ids=token_ids_BL, use_cache=False).logits.squeeze(-1)
    logits_BP: Tensor = logits_BL.gather(1, positions_BP5[..., 0])
    return logits_BP.to(torch.promote_types(logits_BP.dtype, torch.float32))


def stack_positions(rows: Sequence[Sequence[ValuePosition]]) -> Tensor:
    """Stack the positions of B sequences into (B, P, 5), padded with the position of the first token."""
    width = max(map(len, rows))
    return torch.tensor(
        [[*row, *[ValuePosition.at(0)] * (width - len(row))] for row in rows], dtype=torch.long
    )


@torch.no_grad()
def read_sequences(
    model: PreTrainedModel,
    sequences: Sequence[Sequence[int]],
    positions: Sequence[Sequence[ValuePosition]],
    batches: Iterable[Sequence[int]],
    *,
    on_batch: Callable[[int], None] | None = None,
) -> list[list[float]]:
    """Return the head's raw outputs for many sequences, without gradient.

    Args:
        model: as for :func:`read_logits`; its training mode is restored afterwards.
        sequences: token ids.
        positions: of the values of each sequence.
        batches: indices of the sequences that share a forward (see ``rlprm.data.batching``).
        on_batch: called after each batch with its number of sequences.

    Returns:
        One list of raw outputs for each sequence, in order.
    """
    results: list[list[float]] = [[] for _ in sequences]
    was_training = model.training
    model.eval()
    try:
        for batch in batches:
            ids = pad_right([sequences[i] for i in batch], 0).to(model.device)
            of_batch = stack_positions([positions[i] for i in batch]).to(model.device)
            logits = read_logits(model, ids, of_batch).tolist()
            for index, row in zip(batch, logits, strict=True):
                results[index] = row[: len(positions[index])]
            if on_batch is not None:
                on_batch(len(batch))
    finally:
        model.train(was_training)
    return results
