"""The policy that acted, read again before the update: log-probabilities, values, reference.

The result is the same for any number of processes: each reads its share of the rows and receives all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from rlprm.data.batching import call_tokens, micro_batches
from rlprm.models import zero
from rlprm.rl.actor_critic import Reading
from rlprm.rl.batch import Batch
from rlprm.rl.config import RLConfig
from rlprm.rl.credit import OldLogprobs
from rlprm.rl.engine import Engine
from rlprm.runtime.processes import collective

__all__ = ["own_micro_batches", "read_old_logprobs", "read_rows", "rows_to_read"]

_SHARE_READ = 1 / 8
"""Share of the episodes that are read although the sampler's log-probabilities serve."""
_LEAST_READ = 8
_SALT = 4
"""Keeps the choice of episodes apart from the order of the update's rows."""


def rows_to_read(
    config: RLConfig, engine: Engine, batch: Batch, *, sampler_is_exact: bool, iteration: int
) -> list[int] | None:
    """Return the rows whose policy the trainer must read, or None for all rows.

    The sampler's log-probabilities replace the trainer's where the difference is rounding of float32: the
    sampler has the very weights, in this process, and both compute in float32. With ``old_logprobs: sampler``
    they are the ratio's denominator anyway. A sample of the episodes is read in any case, against a sampler
    with another policy. Everything is read where the numbers differ or another part needs the reading:

    * an importance correction, which compares both numbers;
    * a KL term, whose reference is read at the same tokens;
    * a critic that shares the policy's body;
    * ZeRO-3, whose order of gathered weights follows the first forward pass.

    Args:
        config: of the run.
        engine: holds the model.
        batch: the episodes.
        sampler_is_exact: see ``Sampler.is_exact``.
        iteration: decides with the seed which episodes are read.
    """
    is_exact = sampler_is_exact and not engine.in_half
    serves = is_exact or config.old_logprobs == "sampler"
    needs_all = config.importance_cap or config.kl_coef or engine.model.value_head is not None
    count = max(_LEAST_READ, math.ceil(len(batch) * _SHARE_READ))
    if not serves or needs_all or zero.zero_stage() == 3 or count >= len(batch):
        return None
    drawn = np.random.default_rng((config.seed, iteration, _SALT)).permutation(len(batch))
    return sorted(drawn[:count].tolist())


@collective
def read_old_logprobs(
    engine: Engine,
    batch: Batch,
    *,
    token_budget: int,
    with_reference: bool,
    policy_rows: Sequence[int] | None = None,
) -> OldLogprobs:
    """Read policy, critic and reference at every sampled token.

    Args:
        engine: holds the model.
        batch: the episodes.
        token_budget: padded tokens of a forward pass.
        with_reference: whether to read the reference, too.
        policy_rows: rows whose policy is read, see :func:`rows_to_read`; the other rows get the sampler's
            log-probabilities, and their policy is not read. None reads all.
    """
    every = range(len(batch))
    chosen = every if policy_rows is None else policy_rows
    passes = [(chosen, True)]
    if len(chosen) < len(batch) and engine.model.has_critic:
        passes.append((sorted(set(every) - set(chosen)), False))
    own: list[tuple[list[int], list[Tensor]]] = []
    with engine.reading():
        for group, with_policy in passes:
            for rows in own_micro_batches(engine, group, batch, token_budget):
                reading, sampled_BL = read_rows(
                    engine, rows, batch, with_policy=with_policy, with_reference=with_reference
                )
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
    if policy_rows is not None:
        rest = sorted(set(every) - set(policy_rows))
        logprobs_BL[rest] = (batch.sampler_logprobs_BL * batch.layout.sampled)[rest]
    return OldLogprobs(logprobs_BL, values_BL, ref_logprobs_BL if with_reference else None, policy_rows)


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
    with_policy: bool = True,
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
        with_policy=with_policy, with_entropy=with_entropy, with_reference=with_reference,
    )  # fmt: skip
    return reading, sampled_BL


def _scattered(x_N: Tensor, sampled_BL: Tensor) -> Tensor:
    """Return (B', L') on the CPU: the numbers at the places of their tokens, 0 elsewhere."""
    full_BL = torch.zeros(sampled_BL.shape)
    full_BL[sampled_BL] = x_N.float().cpu()
    return full_BL
