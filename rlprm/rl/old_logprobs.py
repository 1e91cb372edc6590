"""The policy that acted, read again before the update: log-probabilities, values, reference.

The result is the same for any number of processes: each reads its share of the rows and receives all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from rlprm.data.batching import call_tokens
from rlprm.rl.actor_critic import Reading
from rlprm.rl.batch import Batch, micro_batches
from rlprm.rl.credit import OldLogprobs
from rlprm.rl.engine import Engine
from rlprm.runtime.processes import collective

__all__ = ["own_micro_batches", "read_old_logprobs", "read_rows"]


@collective
def read_old_logprobs(
    engine: Engine, batch: Batch, *, token_budget: int, with_reference: bool
) -> OldLogprobs:
    """Read policy, critic and reference at every sampled token.

    Args:
        engine: holds the model.
        batch: the episodes.
        token_budget: padded tokens of a forward pass.
        with_reference: whether to read the reference, too.
    """
    own: list[tuple[list[int], list[Tensor]]] = []
    with engine.reading():
        for rows in own_micro_batches(engine, range(len(batch)), batch, token_budget):
            reading, sampled_BL = read_rows(engine, rows, batch, with_reference=with_reference)
            parts = [reading.logprobs, reading.values, reading.ref_logprobs]
            if rows:
                own.append((rows, [_scattered(part, sampled_BL) for part in parts]))
    shape = batch.token_ids_BL.shape
    logprobs_BL, values_BL, ref_logprobs_BL = (torch.zeros(shape) for _ in range(3))
    for share in engine.processes.gather_all(own):
        for rows, (logprobs, values, ref_logprobs) in share:
            width = logprobs.shape[1]
            logprobs_BL[rows, :width] = logprobs
            values_BL[rows, :width] = values
            ref_logprobs_BL[rows, :width] = ref_logprobs
    return OldLogprobs(logprobs_BL, values_BL, ref_logprobs_BL if with_reference else None)


def own_micro_batches(
    engine: Engine, rows: Sequence[int], batch: Batch, token_budget: int
) -> Iterator[list[int]]:
    """Yield this process's micro-batches of some rows; every process has the same number of them."""
    return micro_batches(
        rows,
        batch.widths_B,
        token_budget=token_budget,
        call_tokens=call_tokens(engine.device),
        rank=engine.processes.rank,
        processes=engine.processes.count,
    )


def read_rows(
    engine: Engine,
    rows: Sequence[int],
    batch: Batch,
    *,
    with_entropy: bool = False,
    with_reference: bool = False,
) -> tuple[Reading, Tensor]:
    """Take rows forward.

    Without rows one token of row 0 goes forward, so that this process takes part in the collectives of the
    others; the caller must give that reading the weight 0.

    Returns:
        The reading of N sampled tokens, and (B', L'), boolean: their places in the chosen rows.
    """
    chosen = list(rows) or [0]
    width = max(batch.widths_B[row] for row in chosen)
    sampled_BL = batch.layout.sampled[chosen, :width]
    rows_N, positions_N = sampled_BL.nonzero(as_tuple=True)
    if not rows:
        rows_N, positions_N = rows_N[:1], positions_N[:1]
    reading = engine.forward(
        batch.token_ids_BL[chosen, :width], rows_N, positions_N,
        with_entropy=with_entropy, with_reference=with_reference,
    )  # fmt: skip
    return reading, sampled_BL


def _scattered(x_N: Tensor, sampled_BL: Tensor) -> Tensor:
    """Return (B', L') on the CPU: the numbers at the places of their tokens, 0 elsewhere."""
    full_BL = torch.zeros(sampled_BL.shape)
    full_BL[sampled_BL] = x_N.float().cpu()
    return full_BL
