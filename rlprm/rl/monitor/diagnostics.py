"""What an iteration's episodes say about the policy and about its reward; pure."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rlprm.data.failures import has_failed
from rlprm.functional.kl import kl_values
from rlprm.functional.metrics import auc
from rlprm.functional.moments import explained_variance, moment_sums
from rlprm.rl.batch import Batch, PRMValues
from rlprm.rl.credit import Credit, OldLogprobs
from rlprm.types import Trajectory

__all__ = ["credit_metrics", "prm_metrics", "rollout_metrics"]


def rollout_metrics(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """How the policy behaves.

    ``repeated_actions``: share of steps whose action is that of the step before. ``invalid_actions``:
    share of steps the environment could not carry out. Failed episodes count in ``failed`` alone.
    """
    whole = [t for t in trajectories if not has_failed(t) and t.steps]
    failed = 1.0 - len(whole) / len(trajectories)
    if not whole:
        return {"failed": failed}
    steps = sum(len(t.steps) for t in whole)
    repeated = sum(a.action == b.action for t in whole for a, b in zip(t.steps, t.steps[1:], strict=False))
    return {
        "success": sum(t.outcome.success for t in whole) / len(whole),
        "score": sum(t.outcome.score for t in whole) / len(whole),
        "turns": steps / len(whole),
        "action_tokens": sum(t.action_tokens for t in whole) / steps,
        "tokens": sum(len(t.token_ids) for t in whole) / len(whole),
        "repeated_actions": repeated / steps,
        "invalid_actions": sum(not step.valid for t in whole for step in t.steps) / steps,
        "truncated": sum(bool(t.stop and t.stop.is_truncation) for t in whole) / len(whole),
        "failed": failed,
    }


def prm_metrics(batch: Batch, reads: PRMValues) -> dict[str, float]:
    """What the PRM believes, held against what came out.

    ``overrating``: mean of ``v_T`` minus the outcome, over episodes. It rises where the policy learns
    to please the PRM instead of doing the task. ``failures``: mean ``v_T`` of failed episodes. ``auc``: how
    well the values in the middle of episodes rank successes above failures.
    """
    rows = torch.arange(len(batch))
    last_B = reads.values_BT1[rows, batch.lengths_B]
    middle_B = reads.values_BT1[rows, (batch.lengths_B + 1) // 2]
    found = {
        "initial_value": float(reads.values_BT1[:, 0].mean()),
        "final_value": float(last_B.mean()),
        "overrating": float((last_B - batch.outcomes_B).mean()),
    }
    for name, chosen in (("successes", batch.success_B), ("failures", ~batch.success_B)):
        if bool(chosen.any()):
            found[name] = float(last_B[chosen].mean())
    ranked = auc(middle_B.tolist(), batch.success_B.tolist())
    return found if ranked is None else {**found, "auc": ranked}


def credit_metrics(batch: Batch, credit: Credit, evaluated: OldLogprobs) -> dict[str, float]:
    """What was paid, per episode: the shares of PRM, outcome and KL apart; and how well the critic knew."""
    shares = {
        "prm": credit.rewards.prm, "outcome": credit.rewards.outcome, "kl_penalty": credit.kl_penalty_BT,
    }  # fmt: skip
    found = {f"reward/{name}": float(share.sum(1).mean()) for name, share in shares.items()}
    found["reward/total"] = found["reward/prm"] + found["reward/outcome"] - found["reward/kl_penalty"]
    found["ppo/advantage_std"] = credit.raw_std
    sampled = batch.layout.sampled
    if evaluated.ref_logprobs_BL is not None:
        kl_BL = kl_values(evaluated.logprobs_BL, evaluated.ref_logprobs_BL, sampled)
        found["ppo/kl_to_reference"] = float(kl_BL[sampled].mean())
    found["ppo/sampler_mismatch"] = float(
        (evaluated.logprobs_BL - batch.sampler_logprobs_BL)[sampled].abs().mean()
    )
    if bool(credit.has_return_BL.any()):
        errors = credit.returns_BL - evaluated.values_BL
        explained = explained_variance(
            moment_sums(credit.returns_BL, credit.has_return_BL), moment_sums(errors, credit.has_return_BL)
        )
        if explained is not None:
            found["ppo/explained_variance"] = explained
    return found
