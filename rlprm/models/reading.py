"""Reading one number at chosen places of token sequences: the PRM's and the critic's view of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlprm.data.batching import pad_right
from rlprm.models.lm_head import LMHead
from rlprm.models.unwrap import unwrapped
from rlprm.models.value_positions import ValuePosition
from rlprm.models.zero import is_split


class _Float32Linear(nn.Linear):
    """A linear layer that computes in float32, under autocast too, and where DeepSpeed keeps it in bfloat16.

    It holds nothing of its own, so that copies of it and its weights in a file are those of a plain layer.
    """

    def forward(self, input: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.float()
        with torch.autocast(input.device.type, enabled=False):
            return nn.functional.linear(input.float(), self.weight.float(), bias)


def compute_in_float32(head: nn.Module) -> None:
    """Make a scalar head exact, however coarse the body's numbers are.

    bfloat16 has 8 significant bits: values around 0.8 would be multiples of 1/256, which is as much as
    a step changes them, and the loss looks at such changes.
    """
    if not any(map(is_split, head.parameters())):  # DeepSpeed has one dtype for all
        head.to(torch.float32)
    if type(head) is nn.Linear:
        head.__class__ = _Float32Linear


def read_logits(model: nn.Module, token_ids_BL: Tensor, reads_BP3: Tensor) -> Tensor:
    """Return what a reward model's head says at given reads.

    One causal forward serves all reads of a row. Rows are padded on the right and no
    attention mask is given: causal attention never looks at what follows, and
    without a mask the fast attention kernels apply. ``use_cache=False`` matters:
    a cache would make some versions of transformers treat the batch differently.

    Args:
        model: a token classification model with one label, or one with a lm head.
        token_ids_BL: (B, L), padded on the right.
        reads_BP3: (B, R, 3): each row a ``ValuePosition``; padding may be any.

    Returns:
        (B, R) in at least float32.
    """
    if isinstance(unwrapped(model), LMHead):
        values_BP: Tensor = model(input_ids=token_ids_BL, reads=reads_BP3)
        return values_BP
    logits_BL = model(input_ids=token_ids_BL, use_cache=False).logits.squeeze(-1)
    logits_BP: Tensor = logits_BL.gather(1, reads_BP3[..., 0])
    return logits_BP.to(torch.promote_types(logits_BP.dtype, torch.float32))


def stack_positions(rows: Sequence[Sequence[ValuePosition]]) -> Tensor:
    """Stack the reads of B sequences into (B, R, 3), filled up with reads of the first token."""
    width = max(map(len, rows))
    return torch.tensor(
        [[*row, *[ValuePosition.at(0)] * (width - len(row))] for row in rows], dtype=torch.long
    )


@torch.no_grad()
def read_sequences(
    model: PreTrainedModel,
    sequences: Sequence[Sequence[int]],
    reads: Sequence[Sequence[ValuePosition]],
    batches: Iterable[Sequence[int]],
    *,
    on_batch: Callable[[int], None] | None = None,
) -> list[list[float]]:
    """Read many sequences without gradient.

    Args:
        model: as for :func:`read_logits`; its training mode is restored afterwards.
        sequences: token ids.
        reads: where to read each sequence.
        batches: which sequences go through the model together (see ``rlprm.data.batching``).
        on_batch: called after each batch with the number of sequences done in it.

    Returns:
        The raw outputs of each sequence, in order.
    """
    results: list[list[float]] = [[] for _ in sequences]
    was_training = model.training
    model.eval()
    try:
        for batch in batches:
            ids = pad_right([sequences[i] for i in batch], 0).to(model.device)
            of_batch = stack_positions([reads[i] for i in batch]).to(model.device)
            logits = read_logits(model, ids, of_batch).tolist()
            for index, row in zip(batch, logits, strict=True):
                results[index] = row[: len(reads[index])]
            if on_batch is not None:
                on_batch(len(batch))
    finally:
        model.train(was_training)
    return results
