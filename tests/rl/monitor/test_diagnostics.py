"""What is reported of an iteration, by hand."""

from __future__ import annotations

import pytest
import torch

from rlprm.rl.batch import Batch, PRMValues
from rlprm.rl.credit import Credit, OldLogprobs
from rlprm.rl.monitor.diagnostics import credit_metrics, prm_metrics, rollout_metrics
from rlprm.rl.rewards import StepRewards
from rlprm.types import End, StopReason
from tests.toys.trajectories import trajectory

WON = trajectory(".aac.ac.ac", success=True, actions=("right", "right", "left"))
LOST = trajectory("..c", score=0.25, stop=StopReason.ROUND_LIMIT, valid=False)
FAILED = trajectory(".ac.ac.ac.ac", stop=StopReason.ERROR, valid=False)
NEVER_BEGUN = trajectory("", stop=StopReason.ERROR)


def test_how_the_policy_behaves() -> None:
    found = rollout_metrics([WON, LOST, FAILED, NEVER_BEGUN], 4)
    assert found == {
        "success": 0.5,
        "score": 0.625,
        "turns": 2.0,
        "action_tokens": 2.0,  # 8 sampled in 4 steps
        "tokens": 6.5,
        "repeated_actions": 0.25,
        "invalid_actions": 0.25,
        "invalid_several_actions": 0.0,
        "invalid_cut": 0.0,
        "invalid_no_action": 0.0,
        "invalid_refused": 0.25,
        "cut_messages": 0.0,
        "invented_observations": 0.0,
        "truncated": 0.5,
        "declared": 0.5,
        "declared_success": 0.5,
        "failed": 0.5,
    }


def test_successes_that_the_agent_did_not_declare_are_counted_apart() -> None:
    waited = trajectory(".ac.ac", success=True, stop=StopReason.ROUND_LIMIT)
    wrong = trajectory(".ac", stop=StopReason.DECLARED)
    found = rollout_metrics([WON, waited, waited, wrong, LOST], 4)
    assert (found["success"], found["declared"], found["declared_success"]) == (0.6, 0.4, 0.2)
    # The environment ends successful episodes: there is no declared success to count.
    ended = trajectory(".ac", success=True, stop=StopReason.SUCCESS, end=End.ON_SUCCESS)
    found = rollout_metrics([ended], 4)
    assert found["declared"] == 0.0
    assert "declared_success" not in found


def test_messages_that_were_cut_are_a_share_of_those_of_episodes_that_did_not_fail() -> None:
    cut = trajectory(".aaf.ac", valid=False)
    found = rollout_metrics([cut, WON, trajectory(".aaf", stop=StopReason.ERROR)], 2)
    assert (found["cut_messages"], found["invalid_cut"], found["invalid_refused"]) == (0.2, 0.2, 0.2)
    assert rollout_metrics([cut, WON], 3)["cut_messages"] == 0.0


def test_where_all_failed_nothing_else_is_known() -> None:
    assert rollout_metrics([FAILED, NEVER_BEGUN], 4) == {"failed": 1.0}


def test_what_the_prm_believes_is_held_against_what_came_out() -> None:
    batch = Batch.from_trajectories([WON, LOST, trajectory(".c.c")])
    reads = PRMValues(torch.tensor([[0.5, 0.6, 0.7, 0.9], [0.5, 0.3, 9.0, 9.0], [0.2, 0.8, 0.6, 9.0]]), None)
    found = prm_metrics(batch, reads)
    assert found == pytest.approx(
        {
            "initial_value": 0.4,
            "final_value": 0.6,
            "overrating": (-0.1 + 0.3 + 0.6) / 3,
            "successes": 0.9,
            "failures": 0.45,
            # in the middle: .7 of the success after 2 of 3 steps; .3 and .8 of the failures after 1
            "auc": 0.5,
        }
    )


def test_a_ranking_of_one_class_is_none() -> None:
    batch = Batch.from_trajectories([LOST, LOST])
    found = prm_metrics(batch, PRMValues(torch.tensor([[0.5, 0.3], [0.5, 0.2]]), None))
    assert "auc" not in found
    assert "successes" not in found


def paid(batch: Batch, **changes: torch.Tensor) -> tuple[Credit, OldLogprobs]:
    zeros_BL = torch.zeros(batch.token_ids_BL.shape)
    prm_BT, outcome_BT = torch.tensor([[0.1, 0.2, -0.1], [0.5, 0, 0]]), torch.tensor([[0, 0, 1.0], [0, 0, 0]])
    credit = Credit(
        zeros_BL,
        changes.pop("returns_BL", zeros_BL),
        changes.pop("has_return_BL", zeros_BL.bool()),
        StepRewards(prm_BT, outcome_BT),
        kl_penalty_BT=torch.tensor([[0.0, 0.2, 0], [0.2, 0, 0]]),
        raw_std=0.75,
    )
    return credit, OldLogprobs(
        **{"logprobs_BL": -batch.layout.sampled.float(), "values_BL": zeros_BL, **changes}
    )


def test_what_was_paid_is_reported_share_by_share() -> None:
    batch = Batch.from_trajectories([WON, LOST])
    found = credit_metrics(batch, *paid(batch))
    assert found == pytest.approx(
        {
            "reward/prm": 0.35,
            "reward/outcome": 0.5,
            "reward/kl_penalty": 0.2,
            "reward/total": 0.65,
            "ppo/advantage_std": 0.75,
            "ppo/sampler_mismatch": 0.0,
            "ppo/importance_weight_min": 1.0,
            "ppo/importance_weight_max": 1.0,
        }
    )


def test_mismatch_and_distance_are_of_sampled_tokens_alone() -> None:
    batch = Batch.from_trajectories([WON, LOST])
    sampled = batch.layout.sampled
    off_BL = torch.full(sampled.shape, 50.0).where(~sampled, -1.5)
    ref_BL = torch.full(sampled.shape, -50.0).where(~sampled, -1.75)
    found = credit_metrics(batch, *paid(batch, logprobs_BL=off_BL, ref_logprobs_BL=ref_BL))
    assert found["ppo/sampler_mismatch"] == 0.5
    assert found["ppo/kl_to_reference"] == 0.25


def test_how_well_the_critic_knew_is_measured_where_it_learns() -> None:
    batch = Batch.from_trajectories([WON, LOST])
    where = torch.zeros(batch.token_ids_BL.shape, dtype=torch.bool)
    where[0, 1] = where[0, 5] = where[1, 2] = True
    returns_BL, values_BL = torch.full(where.shape, 8.0), torch.full(where.shape, -8.0)
    returns_BL[where], values_BL[where] = torch.tensor([1.0, 1.0, 0.0]), torch.tensor([0.5, 1.0, 0.0])
    credit, old = paid(batch, returns_BL=returns_BL, has_return_BL=where, values_BL=values_BL)
    # errors ½, 0, 0: variance 1/18; returns 1, 1, 0: variance 2/9
    assert credit_metrics(batch, credit, old)["ppo/explained_variance"] == pytest.approx(0.75)
    returns_BL[where] = 1.0  # nothing to explain
    assert "ppo/explained_variance" not in credit_metrics(batch, credit, old)
