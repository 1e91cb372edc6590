"""What the PRM gives to the advantages, at the start and after a critic has learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rlprm.errors import ConfigError
from rlprm.functional.masking import length_mask
from rlprm.rl import advantages, rewards
from rlprm.rl.advantages import AdvantageInputs, Advantages
from rlprm.rl.advantages.outcome_plus_progress import steps_progress
from rlprm.rl.batch import Batch, PRMValues
from rlprm.rl.credit import Credit, CreditSetting, OldLogprobs, assign_credit
from rlprm.types import StopReason
from tests.toys.trajectories import trajectory

BATCH = Batch.from_trajectories(
    [
        trajectory("..aaf.ac", task="x", success=True),
        trajectory(".ac.ac.c", task="x", sample=1),
        trajectory(".c.ac", task="y", stop=StopReason.ROUND_LIMIT),
    ]
)


def random_prm(seed: int, *, reads_states: bool) -> PRMValues:
    generator = torch.Generator().manual_seed(seed)
    states = torch.rand(3, 3, generator=generator) if reads_states else None
    return PRMValues(torch.rand(3, 4, generator=generator), states)


def credit(reward: str, prm: PRMValues, seed: int = 0, **changes: Any) -> Credit:
    generator = torch.Generator().manual_seed(seed)
    values_BL = torch.rand(BATCH.token_ids_BL.shape, generator=generator).where(BATCH.layout.sampled, 0.0)
    old = OldLogprobs(torch.zeros_like(values_BL), values_BL)
    return assign_credit(BATCH, prm, old, CreditSetting(**{"reward": reward, "whiten": "none", **changes}))


# --- an identity ---


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    gamma=st.sampled_from([0.5, 0.9, 1.0]),
    lam=st.sampled_from([0.0, 0.7, 1.0]),
    scale=st.sampled_from([0.3, 1.0, 2.0]),
    advantage=st.sampled_from(["turn_gae", "token_gae"]),
    reads_states=st.booleans(),
    bootstrap=st.booleans(),
)
def test_progress_is_outcome_with_the_critic_that_predicts_it(
    seed: int, gamma: float, lam: float, scale: float, advantage: str, reads_states: bool, bootstrap: bool
) -> None:
    prm = random_prm(seed, reads_states=reads_states)
    common = {
        "advantage": advantage, "advantage_kwargs": {"lam": lam}, "gamma": gamma,
        "bootstrap_truncations": bootstrap,
    }  # fmt: skip
    plain = credit("outcome", prm, seed, **common)
    shaped = credit("progress", prm, seed, reward_kwargs={"scale": scale}, **common)
    assert shaped.rewards.prm.abs().max() > 0.01
    torch.testing.assert_close(shaped.advantages_BL, plain.advantages_BL, atol=1e-5, rtol=0)
    torch.testing.assert_close(shaped.returns_BL, plain.returns_BL, atol=1e-5, rtol=0)
    assert torch.equal(shaped.has_return_BL, plain.has_return_BL)


@pytest.mark.parametrize("advantage", ["turn_gae", "token_gae"])
@pytest.mark.trap("refreshed potential")
def test_trap_a_refreshed_prm_leaves_the_critic_right(advantage: str) -> None:
    """A critic of shaped returns would be wrong at once: its targets move with the potential."""
    before, after = (
        credit("progress", random_prm(seed, reads_states=False), advantage=advantage) for seed in (1, 2)
    )
    assert (before.rewards.prm - after.rewards.prm).abs().max() > 0.1
    torch.testing.assert_close(before.returns_BL, after.returns_BL)
    torch.testing.assert_close(before.advantages_BL, after.advantages_BL, atol=1e-6, rtol=0)


# --- outcome_plus_progress ---


def inputs(**changes: Any) -> AdvantageInputs:
    """Two episodes: a success of two steps, a failure of one, with a critic that says ½ everywhere."""
    parts = {
        "rewards_BT": torch.tensor([[0.0, 1.0], [0.0, 0.0]]),
        "lengths_B": torch.tensor([2, 1]),
        "values_BT": torch.full((2, 2), 0.5),
        "prm_values_BT1": torch.tensor([[0.4, 0.6, 0.9], [0.4, 0.1, 0.0]]),
        "outcomes_B": torch.tensor([1.0, 0.0]),
    }
    return AdvantageInputs(**{**parts, **changes})


def estimate(of: AdvantageInputs, name: str = "outcome_plus_progress", **kwargs: Any) -> Advantages:
    return advantages.load(name).estimate(of, gamma=1.0, lam=0.0, **kwargs)


def test_the_progress_of_each_step_is_added_and_the_outcome_measures_the_last() -> None:
    # λ = 0: Â = ½ - ½, 1 - ½;  0 - ½.   p = .6 - .4, 1 - .6;  0 - .4
    found = estimate(inputs(), alpha=2.0)
    torch.testing.assert_close(found.prm, 2.0 * torch.tensor([[0.2, 0.4], [-0.4, 0.0]]))
    torch.testing.assert_close(found.advantages, torch.tensor([[0.4, 0.5 + 0.8], [-0.5 - 0.8, 0.0]]))
    # the critic learns the outcome, without p: ½, 1;  0
    torch.testing.assert_close(found.returns, torch.tensor([[0.5, 1.0], [0.0, 0.0]]))


def test_states_stand_before_their_actions_where_they_are_read() -> None:
    states = torch.tensor([[0.3, 0.5], [0.2, 9.0]])
    found = steps_progress(inputs(prm_states_BT=states), v_min=0.0, v_max=1.0)
    torch.testing.assert_close(found, torch.tensor([[0.6 - 0.3, 1 - 0.5], [0 - 0.2, 0.0]]))


def test_an_episode_that_goes_on_keeps_the_prms_opinion_of_its_last_step() -> None:
    cut_off = torch.tensor([False, True])
    of = inputs(bootstrapped_B=cut_off, end_values_B=torch.tensor([0.0, 0.1]))
    found = estimate(of, alpha=1.0)
    torch.testing.assert_close(found.prm, torch.tensor([[0.2, 0.4], [0.1 - 0.4, 0.0]]))
    assert float(found.advantages[1, 0]) == pytest.approx((0.1 - 0.5) - 0.3)


def test_values_outside_the_range_of_outcomes_are_clipped_before_differences_are_taken() -> None:
    wild = torch.tensor([[-0.5, 1.7, 0.9], [0.4, 0.1, 0.0]])
    found = steps_progress(inputs(prm_values_BT1=wild), v_min=0.0, v_max=1.0)
    torch.testing.assert_close(found[0], torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize("settings", [{"alpha": 0.0}, {"alpha": -1.0}, {"v_max": 0.0}])
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        estimate(inputs(), **settings)


def test_the_share_of_the_prm_is_logged_before_whitening_and_only_for_a_sum() -> None:
    prm = random_prm(0, reads_states=True)
    settings = {"advantage": "outcome_plus_progress", "advantage_kwargs": {"alpha": 2.0, "lam": 0.5}}
    raw, whitened = credit("outcome", prm, **settings), credit("outcome", prm, whiten="both", **settings)
    alone = credit("outcome", prm, advantage="turn_gae", advantage_kwargs={"lam": 0.5})
    first = BATCH.layout.last_BT[length_mask(BATCH.lengths_B, 3)]
    rows = torch.arange(3).repeat_interleave(BATCH.lengths_B)
    total, rest = raw.advantages_BL[rows, first], alone.advantages_BL[rows, first]
    covariance = torch.cov(torch.stack([total - rest, total]), correction=0)
    assert raw.prm_share == pytest.approx(float(covariance[0, 1] / covariance[1, 1]), rel=1e-5)
    assert whitened.prm_share == raw.prm_share
    assert alone.prm_share is None


# --- what is left of the PRM once a critic has learned ---

STATES, GOAL_CHANCE, STEPS = 5, 0.55, 4


@dataclass(frozen=True)
class Walks:
    """Episodes of a random walk: after four steps its place is the chance of success."""

    states_BT: Tensor
    outcomes_B: Tensor
    prm_BT1: Tensor

    @classmethod
    def drawn(cls, prm_T1S: Tensor, generator: torch.Generator, episodes: int = 512) -> Walks:
        up_BT = torch.rand(episodes, STEPS, generator=generator) < GOAL_CHANCE
        places_BT = up_BT.long().cumsum(1)
        states_BT = torch.cat([torch.zeros_like(places_BT[:, :1]), places_BT[:, :-1]], dim=1)
        outcomes_B = (torch.rand(episodes, generator=generator) < places_BT[:, -1] / STEPS).float()
        times = torch.arange(STEPS + 1)
        chain_BT1 = torch.cat([torch.zeros_like(places_BT[:, :1]), places_BT], dim=1)
        return cls(states_BT, outcomes_B, prm_T1S[times, chain_BT1])

    def paid(self, reward: str) -> rewards.StepRewards:
        lengths_B = torch.full((len(self.outcomes_B),), STEPS)
        return rewards.load(reward).step_rewards(self.prm_BT1, self.outcomes_B, lengths_B, gamma=1.0)

    def estimate(self, name: str, critic_TS: Tensor, reward: str = "outcome", **kwargs: float) -> Advantages:
        paid = self.paid(reward)
        values_BT = critic_TS[torch.arange(STEPS), self.states_BT]
        if paid.potential_BT1 is not None:
            values_BT = values_BT - paid.potential_BT1[:, :-1]
        given = AdvantageInputs(
            paid.total, torch.full((len(self.outcomes_B),), STEPS), values_BT=values_BT,
            prm_values_BT1=self.prm_BT1, outcomes_B=self.outcomes_B,
        )  # fmt: skip
        return advantages.load(name).estimate(given, gamma=1.0, lam=0.95, **kwargs)

    def learned(self, critic_TS: Tensor) -> Tensor:
        """The critic after an iteration: half of the way to the mean outcome of each state."""
        after_TS = critic_TS.clone()
        for time in range(STEPS):
            for state in range(STATES):
                there_B = self.states_BT[:, time] == state
                if there_B.any():
                    after_TS[time, state] += 0.5 * (self.outcomes_B[there_B].mean() - critic_TS[time, state])
        return after_TS


def test_under_progress_the_prm_leaves_the_advantages_and_in_the_sum_it_stays() -> None:
    generator = torch.Generator().manual_seed(0)
    noise_prm_T1S = torch.rand(STEPS + 1, STATES, generator=generator)  # knows nothing
    from_prm_TS, from_zero_TS = noise_prm_T1S[:-1].clone(), torch.zeros(STEPS, STATES)
    differences, shares = [], []
    for _ in range(20):
        walks = Walks.drawn(noise_prm_T1S, generator)
        shaped = walks.estimate("turn_gae", from_prm_TS, "progress").advantages
        plain = walks.estimate("turn_gae", from_zero_TS).advantages
        differences.append(float((shaped - plain).std()))
        summed = walks.estimate("outcome_plus_progress", from_prm_TS, alpha=1.0)
        assert summed.prm is not None
        pair = torch.stack([summed.prm.flatten(), summed.advantages.flatten()])
        covariance = torch.cov(pair)
        shares.append(float(covariance[0, 1] / covariance[1, 1]))
        from_prm_TS, from_zero_TS = walks.learned(from_prm_TS), walks.learned(from_zero_TS)
    assert differences[0] > 0.2
    assert differences[5] < 0.05
    assert max(differences[-3:]) < 0.005
    assert min(shares) > 0.2
    assert shares[-1] > 0.8 * shares[0]
