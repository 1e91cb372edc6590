"""One PPO update of an iteration's episodes: epochs, minibatches, denominators, early stopping.

The result is the same for any number of processes: each knows the whole batch, takes its share of the rows
forward and back, and every denominator counts the rows of all.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlprm.errors import TrainingError
from rlprm.rl.batch import Batch
from rlprm.rl.config import RLConfig
from rlprm.rl.credit import Credit, OldLogprobs
from rlprm.rl.engine import Engine, GradientNorms
from rlprm.rl.losses import REPORTS, Denominators, count_denominators, select_targets, total_loss
from rlprm.rl.monitor.ratios import RatioReport
from rlprm.rl.old_logprobs import own_micro_batches, read_rows
from rlprm.runtime.processes import collective
from rlprm.runtime.supervision.memory import within_memory

__all__ = ["UpdateStats", "update"]

log = logging.getLogger(__name__)
_APPROX_KL = REPORTS.index("approx_kl")
_EXPLODED = 100.0
"""Nats a token; a larger KL is that of ratios which have run away."""
_MOST_SKIPPED = 3
"""Steps in a row that may be left out."""


@dataclass(frozen=True)
class UpdateStats:
    """Means over the optimiser steps of an update."""

    policy_loss: float
    value_loss: float
    entropy: float
    """Nats a token, of the policy as it was at each step."""
    approx_kl: float
    """Estimate of KL(π_old || π) when it was last read: how far the update has moved the policy."""
    clip_fraction: float
    value_clip_fraction: float
    kl_loss: float
    grad_norm: float
    """Norm of all gradients, before clipping."""
    policy_grad_norm: float | None
    """Norm of the policy's gradients, the critic's gradient of a shared body included; None under
    DeepSpeed."""
    critic_grad_norm: float | None
    """Norm of the critic's gradients; None without a critic, and under DeepSpeed."""
    ratio_min: float
    """Smallest ratio π / π_old of a token (a message with ``importance_level: message``), at any step."""
    ratio_max: float
    clip_low_fraction: float
    """Share of tokens with a ratio below the clip range and a negative advantage."""
    clip_high_fraction: float
    """Share of tokens with a ratio above the clip range and a positive advantage."""
    steps: int
    skipped_steps: int
    """Steps that were left out: a number was not finite, or ratios had run away."""
    stopped_early: bool
    """Whether ``target_kl`` ended the update."""


@collective
def update(
    engine: Engine,
    batch: Batch,
    credit: Credit,
    old: OldLogprobs,
    config: RLConfig,
    *,
    seed: int,
    factor: float,
    critic_only: bool,
) -> UpdateStats:
    """Take PPO's steps over a batch, in minibatches drawn by a seed.

    Args:
        engine: holds the model.
        batch: the episodes.
        credit: advantages and returns of the batch.
        old: the policy that acted, read before the update.
        config: epochs, minibatches, ``target_kl`` and the coefficients of the loss.
        seed: of the order of the rows, the same in every process.
        factor: of the learning rates, from the schedule.
        critic_only: whether the policy (and a body that it shares with the critic) stays as it is. The
            policy's Adam state is then reset.

    A step whose loss or gradient is not finite, or whose ratios have run away, is left out, except under
    DeepSpeed. So is the step at which the policy is found beyond ``target_kl``, which ends the update.
    If memory runs out in one process, the step is begun again with half of ``micro_batch_tokens``, which hold
    for the rest of the update; the gradients are the same up to rounding.

    Raises:
        TrainingError: if several steps in a row are not finite, or one of them under DeepSpeed.
        OutOfDeviceMemoryError: if the memory is too small for half, too, or runs out in one of several
            processes or under DeepSpeed.
    """
    generator = np.random.default_rng(seed)
    limit = math.inf if config.target_kl is None or critic_only else config.target_kl
    reports: list[Tensor] = []
    norms: list[GradientNorms] = []
    stopped, skipped, in_a_row, moved = False, 0, 0, 0.0
    token_budget = config.micro_batch_tokens
    ratios, tokens = _ratio_report(config), 0
    with engine.learning(factor=factor, critic_only=critic_only):
        for _ in range(config.ppo_epochs):
            order = generator.permutation(len(batch)).tolist()
            for rows in np.array_split(order, min(config.minibatches, len(batch))):
                # The first step is always taken: with the sampler's log-probabilities its KL is rounding.
                bound = limit if reports else math.inf
                (report, norm), token_budget = _step(
                    engine, rows.tolist(), batch, credit, old, config, critic_only, bound,
                    token_budget=token_budget, ratios=ratios,
                )  # fmt: skip
                tokens += int(batch.in_loss[rows].sum())
                wrong = _wrong_number(report, norm)
                if wrong:
                    skipped, in_a_row = skipped + 1, in_a_row + 1
                    if in_a_row >= _MOST_SKIPPED or not engine.CAN_SKIP:
                        raise _impossible(wrong, config)
                    continue
                in_a_row, moved = 0, float(report[_APPROX_KL])
                if norm is not None:
                    reports.append(report)
                    norms.append(norm)
                stopped = moved > limit
                if stopped:
                    break
            if stopped:
                break
    if not reports:
        raise _impossible(wrong, config)
    if skipped:
        log.warning(
            "%d of %d steps were left out: not finite, or with ratios that had run away",
            skipped,
            skipped + len(reports),
        )
    means = dict(zip(REPORTS, torch.stack(reports).mean(0).tolist(), strict=True))
    means["approx_kl"] = moved
    table = ratios.own(engine.processes.rank, engine.processes.count)
    return UpdateStats(
        **means,
        **RatioReport.summary(engine.reduce_sum(table.to(engine.device)).cpu(), tokens=tokens),
        grad_norm=float(np.mean([norm.total for norm in norms])),
        policy_grad_norm=_mean([norm.policy for norm in norms]),
        critic_grad_norm=_mean([norm.critic for norm in norms]),
        steps=len(reports),
        skipped_steps=skipped,
        stopped_early=stopped,
    )


def _step(
    engine: Engine,
    rows: list[int],
    batch: Batch,
    credit: Credit,
    old: OldLogprobs,
    config: RLConfig,
    critic_only: bool,
    limit: float,
    *,
    token_budget: int,
    ratios: RatioReport,
) -> tuple[tuple[Tensor, GradientNorms | None], int]:
    """Take one optimiser step over some rows, unless it is not finite or the policy has moved too far.

    An engine that cannot leave out a step takes it.

    Returns:
        The reports, and the norms before clipping, None if the policy has moved beyond the limit; the tokens
        that the memory suffices for.
    """
    denominators = count_denominators(batch, credit, rows, config)

    begun = len(ratios)

    def accumulate(tokens: int) -> Tensor:
        if tokens < token_budget:  # drop what the attempt that failed has left
            engine.skip()
            ratios.cut(begun)
        parts = list(own_micro_batches(engine, rows, batch, tokens))
        sums = torch.zeros(len(REPORTS), device=engine.device)
        for number, part in enumerate(parts):
            with engine.accumulating(is_last=number == len(parts) - 1):
                loss, report = _losses(
                    engine, part, batch, credit, old, config, denominators, critic_only, ratios
                )
                sums += report
                engine.backward(loss)
        return sums

    sums, fitting = within_memory(
        accumulate, token_budget,
        setting="micro_batch_tokens", again=engine.CAN_SKIP and engine.processes.count == 1,
    )  # fmt: skip
    reduced = engine.reduce_sum(sums).cpu()
    if engine.CAN_SKIP and _wrong_number(reduced):
        engine.skip()
        return (reduced, GradientNorms(math.nan)), fitting
    if engine.CAN_SKIP and float(reduced[_APPROX_KL]) > limit:
        engine.skip()
        return (reduced, None), fitting
    return (reduced, engine.step()), fitting


def _losses(
    engine: Engine,
    rows: list[int],
    batch: Batch,
    credit: Credit,
    old: OldLogprobs,
    config: RLConfig,
    denominators: Denominators,
    critic_only: bool,
    ratios: RatioReport,
) -> tuple[Tensor, Tensor]:
    reading, sampled_BL = read_rows(engine, rows, batch, with_entropy=True)
    if not rows:  # see read_rows
        zero = 0.0 * (reading.logprobs.sum() + reading.values.sum())
        return zero, torch.zeros(len(REPORTS), device=engine.device)
    targets = select_targets(batch, credit, old, rows=rows, sampled_BL=sampled_BL, device=engine.device)
    from_sampler = config.old_logprobs == "sampler"
    denominator_N = targets.sampler_logprobs if from_sampler else targets.old_logprobs
    kept_N = targets.in_loss
    ratios.add(
        reading.logprobs[kept_N], denominator_N[kept_N], targets.advantages[kept_N],
        targets.messages[kept_N] if config.importance_level == "message" else None,
    )  # fmt: skip
    return total_loss(reading, targets, config, denominators, critic_only=critic_only)


def _ratio_report(config: RLConfig) -> RatioReport:
    """Return what collects the ratios, by the bounds that the loss has."""
    if config.clones:  # nothing is clipped
        return RatioReport(low=1.0, high=math.inf)
    assert config.clip_low is not None  # settled
    assert config.clip_high is not None
    return RatioReport(low=config.clip_low, high=config.clip_high)


def _wrong_number(report: Tensor, norm: GradientNorms | None = None) -> str:
    """Return the first number that is not finite, or a ratio that has exploded; empty if all is well."""
    numbers = [*zip(REPORTS, report.tolist(), strict=True), *([("grad_norm", norm.total)] if norm else [])]
    for name, value in numbers:
        if not math.isfinite(value) or (name == REPORTS[_APPROX_KL] and value > _EXPLODED):
            return f"{name} is {value:.3g}"
    return ""


def _impossible(wrong: str, config: RLConfig) -> TrainingError:
    return TrainingError(
        f"{wrong}: lower learning_rate (now {config.step_size:g}) and run the command again; the last "
        "checkpoint is from before"
    )


def _mean(numbers: Sequence[float | None]) -> float | None:
    known = [number for number in numbers if number is not None]
    return float(np.mean(known)) if known else None
