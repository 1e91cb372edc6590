"""From outcomes to the credit of each token: numbers worked out by hand.

Two episodes:  ``..aaf.ac``  succeeds: two steps, the first closed by force after two tokens, an observation
between them.  ``.ac``  fails: one step of two tokens. The critic says ½ before the first step of each,
and ¼ before the second one.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from rlprm.errors import ConfigError
from rlprm.rl.batch import Batch, PRMValues
from rlprm.rl.credit import Credit, CreditSetting, OldLogprobs, assign_credit
from rlprm.types import StopReason
from tests.toys.trajectories import trajectory

PRM = PRMValues(torch.tensor([[0.4, 0.6, 0.9], [0.4, 0.1, 0.0]]), None)


def batch(**second: Any) -> Batch:
    return Batch.from_trajectories(
        [
            trajectory("..aaf.ac", task="x", success=True),
            trajectory(".ac", task="x", sample=1, **second),
        ]
    )


def old_logprobs(of: Batch, **parts: Tensor) -> OldLogprobs:
    """The critic at first tokens; 9 at the other sampled ones, where a step-level critic is not read."""
    values_BL = torch.full(of.token_ids_BL.shape, 9.0).where(of.layout.sampled, 0.0)
    values_BL[0, 2], values_BL[0, 6], values_BL[1, 1] = 0.5, 0.25, 0.5
    logprobs_BL = torch.full_like(values_BL, -1.0).where(of.layout.sampled, 0.0)
    return OldLogprobs(**{"logprobs_BL": logprobs_BL, "values_BL": values_BL, **parts})


def credit(
    reward: str = "outcome",
    advantage: str = "turn_gae",
    *,
    of: Batch | None = None,
    read: OldLogprobs | None = None,
    lam: float | None = 1.0,
    **settings: Any,
) -> Credit:
    of = of or batch()
    if lam is not None:
        settings["advantage_kwargs"] = {"lam": lam}
    setting = CreditSetting(**{"reward": reward, "advantage": advantage, "whiten": "none", **settings})
    return assign_credit(of, PRM, read or old_logprobs(of), setting)


def rows(x_BL: Tensor) -> list[list[float]]:
    return [[round(number, 6) for number in row] for row in x_BL.tolist()]


def test_outcomes_become_credit_of_sampled_tokens_and_targets_at_first_ones() -> None:
    # R - V at λ = 1:  1 - ½ and 1 - ¼ for the success, 0 - ½ for the failure
    found = credit()
    assert rows(found.advantages_BL) == [[0, 0, 0.5, 0.5, 0, 0, 0.75, 0.75], [0, -0.5, -0.5, 0, 0, 0, 0, 0]]
    assert rows(found.has_return_BL) == [[0, 0, 1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, 0, 0, 0]]
    assert rows(found.returns_BL) == [[0, 0, 1, 0, 0, 0, 1, 0], [0] * 8]
    assert found.rewards.prm.tolist() == [[0, 0], [0, 0]]
    assert found.rewards.outcome.tolist() == [[0, 1], [0, 0]]


def test_progress_is_paid_step_by_step() -> None:
    # r = .6 - .4, 1 - .6;  0 - .4. The critic's ½, ¼;  ½ are of the outcome. Shaped they are
    # U = ½ - .4, ¼ - .6;  ½ - .4. With λ = 0: r_t + U_{t+1} - U_t = .2 - .35 - .1, .4 + .35;  -.4 - .1
    found = credit("progress", lam=0.0)
    torch.testing.assert_close(found.rewards.prm, torch.tensor([[0.2, -0.6], [-0.4, 0.0]]))
    torch.testing.assert_close(found.rewards.total, torch.tensor([[0.2, 0.4], [-0.4, 0.0]]))
    assert rows(found.advantages_BL) == [
        [0, 0, -0.25, -0.25, 0, 0, 0.75, 0.75],
        [0, -0.5, -0.5, 0, 0, 0, 0, 0],
    ]
    # the targets, in the outcome's terms: r_t + U_{t+1} + Φ_t = .2 - .35 + .4, .4 + .6;  -.4 + .4
    assert rows(found.returns_BL) == [[0, 0, 0.25, 0, 0, 0, 1, 0], [0] * 8]


def test_time_passes_between_steps_whatever_their_tokens() -> None:
    # γ = ½:  ½ · 1 - ½ and 1 - ¼;  0 - ½
    found = credit(gamma=0.5)
    assert rows(found.advantages_BL) == [[0, 0, 0, 0, 0, 0, 0.75, 0.75], [0, -0.5, -0.5, 0, 0, 0, 0, 0]]


@pytest.mark.parametrize("advantage", ["turn_gae", "token_gae"])
@pytest.mark.trap("discount from the start")
def test_trap_late_steps_are_not_discounted_for_the_steps_before_them(advantage: str) -> None:
    # The last two steps of an episode get the same credit, however many came before.
    found = []
    for tokens in (".c.c", ".c.c.c.c.c.c"):
        of = Batch.from_trajectories([trajectory(tokens, success=True)])
        zeros_BL = torch.zeros(of.token_ids_BL.shape)
        setting = CreditSetting("outcome", None, advantage, {"lam": 1.0}, gamma=0.5, whiten="none")
        credited = assign_credit(of, None, OldLogprobs(zeros_BL, zeros_BL), setting).advantages_BL
        found.append(credited[of.layout.sampled][-2:].tolist())
    assert found[0] == found[1] == [0.5, 1.0]


def test_with_token_level_credit_the_critic_learns_at_every_sampled_token_and_nowhere_else() -> None:
    found = credit(advantage="token_gae")
    sampled = batch().layout.sampled
    assert torch.equal(found.has_return_BL, sampled)
    # The return of each token minus the value before it: 9 where the fixture has no step begin.
    assert rows(found.advantages_BL) == [[0, 0, 0.5, -8, 0, 0, 0.75, -8], [0, -0.5, -9, 0, 0, 0, 0, 0]]
    assert rows(found.returns_BL) == [[0, 0, 1, 1, 0, 0, 1, 1], [0] * 8]
    assert not found.returns_BL[~sampled].any()


@pytest.mark.trap("zero reward")
def test_trap_a_reward_of_zero_is_a_reward() -> None:
    # Nothing is paid anywhere, and yet the critic has to come down and the actions were worse than thought.
    found = assign_credit(
        Batch.from_trajectories([trajectory(".ac")]),
        None,
        OldLogprobs(torch.zeros(1, 3), torch.tensor([[0.0, 0.5, 0.0]])),
        CreditSetting(reward="outcome", whiten="none"),
    )
    assert not found.rewards.total.any()
    assert rows(found.advantages_BL) == [[0, -0.5, -0.5]]
    assert rows(found.has_return_BL) == [[0, 1, 0]]


@pytest.mark.trap("observations in GAE")
def test_trap_observations_are_no_time_steps() -> None:
    # λ = ½ for tokens: a longer observation, or a forced closing token, would let credit decay further.
    found = [
        assign_credit(
            of,
            None,
            OldLogprobs(torch.zeros(of.token_ids_BL.shape), torch.zeros(of.token_ids_BL.shape)),
            CreditSetting("outcome", None, "token_gae", {"lam": 0.5}, whiten="none"),
        ).advantages_BL[of.layout.sampled]
        for of in (
            Batch.from_trajectories([trajectory(tokens, success=True)]) for tokens in (".ac.c", ".aaf.....c")
        )
    ]
    assert found[0].tolist() == found[1].tolist() == [0.25, 0.5, 1.0]


# --- whitening ---


def test_whitening_is_over_the_steps_of_the_whole_batch() -> None:
    # ½, ¾, -½: mean ¼, mean square 1.0625 / 3, variance .2916…
    found = credit(whiten="both")
    std = math.sqrt(1.0625 / 3 - 0.0625)
    assert found.raw_std == pytest.approx(std)
    one, two, three = (x / (std + 1e-6) for x in (0.25, 0.5, -0.75))
    expected = torch.tensor([[0, 0, one, one, 0, 0, two, two], [0, three, three, 0, 0, 0, 0, 0]])
    torch.testing.assert_close(found.advantages_BL, expected)
    scaled = credit(whiten="scale")
    torch.testing.assert_close(scaled.advantages_BL, credit().advantages_BL / (std + 1e-6))
    # The targets of the critic are never touched.
    assert torch.equal(found.returns_BL, credit().returns_BL)


@pytest.mark.parametrize(
    ("advantage", "same_as"),
    [
        ("turn_gae", "both"),
        ("token_gae", "both"),
        ("prm_critic", "both"),
        ("leave_one_out", "scale"),
        ("group", "scale"),
        ("filtered", "none"),
    ],
)
def test_auto_whitening_is_what_the_estimator_asks_for(advantage: str, same_as: str) -> None:
    lam = 1.0 if advantage in ("turn_gae", "token_gae", "prm_critic") else None
    found = {
        how: credit(advantage=advantage, whiten=how, lam=lam).advantages_BL
        for how in ("auto", "both", "scale", "none")
    }
    assert torch.equal(found["auto"], found[same_as])
    assert sum(torch.equal(found["auto"], found[how]) for how in ("both", "scale", "none")) == 1


def test_filtered_cloning_pushes_no_failure_down() -> None:
    found = credit(advantage="filtered", whiten="auto", lam=None)
    assert rows(found.advantages_BL) == [[0, 0, 1, 1, 0, 0, 1, 1], [0] * 8]
    assert not found.has_return_BL.any()


def test_against_the_others_of_its_task_by_hand() -> None:
    # Returns 1 and 0: each is compared with the other one.
    found = credit(advantage="leave_one_out", lam=None)
    assert rows(found.advantages_BL) == [[0, 0, 1, 1, 0, 0, 1, 1], [0, -1, -1, 0, 0, 0, 0, 0]]
    assert not found.has_return_BL.any()
    assert not found.returns_BL.any()


# --- truncation ---


@pytest.mark.trap("truncation")
def test_trap_a_truncation_is_an_end_unless_it_is_bootstrapped() -> None:
    cut_off = batch(stop=StopReason.ROUND_LIMIT)
    assert torch.equal(credit(of=cut_off).advantages_BL, credit().advantages_BL)
    # It goes on: what follows is worth the PRM's last value, .1:  0 + .1 - ½
    found = credit(of=cut_off, bootstrap_truncations=True)
    assert rows(found.advantages_BL)[1] == [0, -0.4, -0.4, 0, 0, 0, 0, 0]
    assert rows(found.advantages_BL)[0] == rows(credit().advantages_BL)[0]


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_what_follows_is_in_the_terms_of_the_reward(scale: float) -> None:
    # Under progress the potential stays, c (v_T - v_{T-1}) = c (.1 - .4), and (1 - c) v_T follows. The
    # critic's ½ is ½ - c .4 in these terms. All in all .1 - ½, as under outcome, whatever c is.
    found = credit(
        "progress",
        of=batch(stop=StopReason.CONTEXT_LIMIT),
        bootstrap_truncations=True,
        reward_kwargs={"scale": scale},
    )
    assert float(found.advantages_BL[1, 1]) == pytest.approx(-0.4, abs=1e-6)


def test_a_success_that_was_cut_off_is_not_paid_twice() -> None:
    # Bootstrapped, its outcome is not paid: the value predicts it.
    found = credit(of=batch(stop=StopReason.ROUND_LIMIT, success=True), bootstrap_truncations=True)
    assert found.rewards.outcome.tolist() == [[0, 1], [0, 0]]


def test_a_value_outside_the_range_of_outcomes_is_clipped_before_it_stands_for_one() -> None:
    of = batch(stop=StopReason.ROUND_LIMIT)
    wild = PRMValues(torch.tensor([[0.4, 0.6, 0.9], [0.4, 1.7, 0.0]]), None)
    found = assign_credit(
        of, wild, old_logprobs(of),
        CreditSetting("outcome", None, "turn_gae", {"lam": 1.0}, bootstrap_truncations=True, whiten="none"),
    )  # fmt: skip
    assert float(found.advantages_BL[1, 1]) == 0.5  # 1 - ½


def test_what_follows_must_be_known() -> None:
    of = batch(stop=StopReason.ROUND_LIMIT)
    with pytest.raises(ConfigError, match="the reward promise cannot bootstrap truncated episodes"):
        credit("promise", of=of, bootstrap_truncations=True)
    with pytest.raises(ConfigError, match="only be bootstrapped with end_values_B"):
        assign_credit(of, None, old_logprobs(of), CreditSetting("outcome", bootstrap_truncations=True))


# --- the penalty ---


def test_the_kl_to_the_reference_is_paid_by_the_step_that_causes_it() -> None:
    of = batch()
    # log π - log π_ref: .5 and .25 in the first step, -.5 in the last token of the second, else 0; junk
    # where nothing was sampled.
    ref_BL = torch.full(of.token_ids_BL.shape, 7.0).where(~of.layout.sampled, -1.0)
    ref_BL[0, 2], ref_BL[0, 3], ref_BL[0, 7] = -1.5, -1.25, -0.5
    read = old_logprobs(of, ref_logprobs_BL=ref_BL)
    found = credit(of=of, read=read, kl_penalty=0.2)
    torch.testing.assert_close(found.kl_penalty_BT, torch.tensor([[0.15, -0.1], [0.0, 0.0]]))
    # 1 + .1 - ¼ for the second step; .15 less for the first one, which causes what follows, too
    assert rows(found.advantages_BL)[0] == [0, 0, 0.45, 0.45, 0, 0, 0.85, 0.85]
    assert rows(found.advantages_BL)[1] == rows(credit().advantages_BL)[1]
    assert found.rewards.outcome.tolist() == [[0, 1], [0, 0]]
    assert not credit(of=of, read=read).kl_penalty_BT.any()
    assert not credit(of=of, kl_penalty=0.2).kl_penalty_BT.any()  # nothing was read of a reference


def test_the_prm_as_critic_needs_none_of_ours() -> None:
    # Â = δ at λ = 0: .6 - .4, 1 - .6;  0 - .4
    found = credit(advantage="prm_critic", lam=0.0)
    assert rows(found.advantages_BL) == [[0, 0, 0.2, 0.2, 0, 0, 0.4, 0.4], [0, -0.4, -0.4, 0, 0, 0, 0, 0]]
    assert not found.has_return_BL.any()
    with pytest.raises(ConfigError, match="prm_critic needs prm_values_BT1"):
        assign_credit(
            batch(), None, old_logprobs(batch()), CreditSetting(reward="outcome", advantage="prm_critic")
        )
