"""Metrics of an iteration: behaviour of the policy, calibration of the PRM, size of the update; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import torch

from rlprm.data.failures import has_failed
from rlprm.data.message_counts import message_shares
from rlprm.functional.kl import kl_values
from rlprm.functional.metrics import auc
from rlprm.functional.moments import explained_variance, moment_sums
from rlprm.rl.batch import Batch, PRMValues
from rlprm.rl.credit import Credit, OldLogprobs
from rlprm.rl.monitor.mismatch import sampler_mismatch
from rlprm.rl.update import UpdateStats
from rlprm.types import End, StepScores, StopReason, Trajectory

__all__ = [
    "TABLE_COLUMNS",
    "credit_metrics",
    "iteration_metrics",
    "prm_metrics",
    "rollout_metrics",
    "table_rows",
]

TABLE_COLUMNS = ["task", "success", "score", "step", "action", "promise", "progress"]
"""Columns of :func:`table_rows`."""


def iteration_metrics(
    trajectories: Sequence[Trajectory],
    batch: Batch,
    values: PRMValues | None,
    credit: Credit,
    old: OldLogprobs,
    stats: UpdateStats,
    *,
    max_new_tokens: int,
) -> dict[str, float]:
    """Return the metrics of an iteration under their full names (``rollout/success``, ``ppo/entropy``, ...).

    Args:
        trajectories: all episodes, failed ones included.
        batch: the episodes that did not fail.
        values: of the PRM, for the batch.
        credit: of the batch.
        old: the policy that acted, read before the update.
        stats: of the update.
        max_new_tokens: the limit of one message.
    """
    prm = {} if values is None else prm_metrics(batch, values)
    behaviour = rollout_metrics(trajectories, max_new_tokens)
    return {
        **{f"rollout/{name}": value for name, value in behaviour.items()},
        **credit_metrics(batch, credit, old),
        **{f"ppo/{name}": value for name, value in asdict(stats).items() if value is not None},
        **{f"prm/{name}": value for name, value in prm.items()},
    }


def rollout_metrics(trajectories: Sequence[Trajectory], max_new_tokens: int) -> dict[str, float]:
    """Return metrics of the policy's behaviour.

    ``repeated_actions``: share of steps whose action is that of the step before. ``invalid_actions``: share
    of steps whose action could not be read or carried out. Beside it stand the shares of
    :func:`rlprm.data.message_counts.message_shares`. ``declared``: share of episodes that the agent itself
    ended. ``declared_success``: share of episodes that are declared and successful, only under
    ``end: declared``. Failed episodes count in ``failed`` only.

    Args:
        trajectories: of an iteration.
        max_new_tokens: the limit of one message.
    """
    usable = [t for t in trajectories if not has_failed(t) and t.steps]
    failed = 1.0 - len(usable) / len(trajectories)
    if not usable:
        return {"failed": failed}
    steps = sum(len(t.steps) for t in usable)
    repeated = sum(a.action == b.action for t in usable for a, b in zip(t.steps, t.steps[1:], strict=False))
    declared = [t for t in usable if t.stop is StopReason.DECLARED]
    metrics = {
        "success": sum(t.outcome.success for t in usable) / len(usable),
        "score": sum(t.outcome.score for t in usable) / len(usable),
        "turns": steps / len(usable),
        "action_tokens": sum(t.action_tokens for t in usable) / steps,
        "tokens": sum(len(t.token_ids) for t in usable) / len(usable),
        "repeated_actions": repeated / steps,
        "invalid_actions": sum(not step.valid for t in usable for step in t.steps) / steps,
        **message_shares(usable, max_new_tokens),
        "truncated": sum(bool(t.stop and t.stop.is_truncation) for t in usable) / len(usable),
        "declared": len(declared) / len(usable),
        "failed": failed,
    }
    if all(t.end is End.DECLARED for t in usable):
        metrics["declared_success"] = sum(t.outcome.success for t in declared) / len(usable)
    return metrics


def prm_metrics(batch: Batch, values: PRMValues) -> dict[str, float]:
    """Compare the PRM's values with the outcomes.

    ``overrating``: mean of ``v_T`` minus the outcome, over episodes. It rises if the policy learns
    to please the PRM instead of solving the task. ``failures``: mean ``v_T`` of failed episodes. ``auc``: how
    well the values in the middle of episodes rank successes above failures.
    """
    rows = torch.arange(len(batch))
    last_B = values.values_BT1[rows, batch.lengths_B]
    middle_B = values.values_BT1[rows, (batch.lengths_B + 1) // 2]
    metrics = {
        "initial_value": float(values.values_BT1[:, 0].mean()),
        "final_value": float(last_B.mean()),
        "overrating": float((last_B - batch.outcomes_B).mean()),
    }
    for name, chosen in (("successes", batch.success_B), ("failures", ~batch.success_B)):
        if bool(chosen.any()):
            metrics[name] = float(last_B[chosen].mean())
    ranked = auc(middle_B.tolist(), batch.success_B.tolist())
    return metrics if ranked is None else {**metrics, "auc": ranked}


def credit_metrics(batch: Batch, credit: Credit, old: OldLogprobs) -> dict[str, float]:
    """Return the shares of PRM, outcome and KL in an episode's reward, and the error of the critic."""
    shares = {
        "prm": credit.rewards.prm, "outcome": credit.rewards.outcome, "kl_penalty": credit.kl_penalty_BT,
    }  # fmt: skip
    metrics = {f"reward/{name}": float(share.sum(1).mean()) for name, share in shares.items()}
    metrics["reward/total"] = metrics["reward/prm"] + metrics["reward/outcome"] - metrics["reward/kl_penalty"]
    metrics["ppo/advantage_std"] = credit.raw_std
    if credit.prm_share is not None:
        metrics["credit/prm_share"] = credit.prm_share
    sampled = batch.layout.sampled
    if old.ref_logprobs_BL is not None:
        kl_BL = kl_values(old.logprobs_BL, old.ref_logprobs_BL, sampled)
        metrics["ppo/kl_to_reference"] = float(kl_BL[sampled].mean())
    metrics["ppo/sampler_mismatch"] = sampler_mismatch(batch, old)
    if bool(credit.has_return_BL.any()):
        errors = credit.returns_BL - old.values_BL
        explained = explained_variance(
            moment_sums(credit.returns_BL, credit.has_return_BL), moment_sums(errors, credit.has_return_BL)
        )
        if explained is not None:
            metrics["ppo/explained_variance"] = explained
    return metrics


def table_rows(trajectories: Sequence[Trajectory], scores: Sequence[StepScores]) -> list[list[object]]:
    """Return a row of ``TABLE_COLUMNS`` for each step; promise and progress are None without scores."""
    rows: list[list[object]] = []
    for number, t in enumerate(trajectories):
        score = scores[number] if scores else None
        for i, step in enumerate(t.steps):
            promise, progress = (score.values[i], score.progress[i]) if score else (None, None)
            head = [t.task.id, t.outcome.success, t.outcome.score, i + 1, step.action]
            rows.append([*head, promise, progress])
    return rows
