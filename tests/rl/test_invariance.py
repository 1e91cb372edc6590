"""Shaping changes no advantage: with the critic it implies, ``progress`` credits what ``outcome`` does."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rlprm.rl import advantages, rewards
from rlprm.rl.advantages import AdvantageInputs


def random_batch(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def numbers(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    return {
        "values": numbers(6, 9),
        "states": numbers(6, 8),
        "critic": 3 * numbers(6, 8) - 1,
        "end": 3 * numbers(6) - 1,
        "outcomes": numbers(6),
        "lengths": torch.randint(0, 9, (6,), generator=generator),
        "cut_off": torch.rand(6, generator=generator) < 0.5,
    }


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    gamma=st.sampled_from([0.5, 0.9, 1.0]),
    lam=st.sampled_from([0.0, 0.7, 1.0]),
    scale=st.sampled_from([0.3, 1.0, 2.0]),
    on_states=st.booleans(),
    bootstrap=st.booleans(),
)
def test_progress_with_the_shaped_critic_equals_outcome_step_by_step(
    seed: int, gamma: float, lam: float, scale: float, on_states: bool, bootstrap: bool
) -> None:
    # V' = V - Φ: whatever the PRM says, whatever V is, ended or cut off.
    b = random_batch(seed)
    bootstrapped = b["cut_off"] if bootstrap else None
    potentials = b["states"] if on_states else b["values"][:, :-1]
    last = b["values"][torch.arange(6), b["lengths"]]

    def credit(reward: str, critic: Tensor, end: Tensor, **kwargs: float) -> Tensor:
        paid = rewards.load(reward).step_rewards(
            b["values"],
            b["outcomes"],
            b["lengths"],
            gamma=gamma,
            states_BT=b["states"] if on_states else None,
            bootstrapped_B=bootstrapped,
            **kwargs,
        )
        inputs = AdvantageInputs(paid.total, b["lengths"], bootstrapped, values_BT=critic, end_values_B=end)
        return advantages.load("turn_gae").estimate(inputs, gamma=gamma, lam=lam).advantages

    plain = credit("outcome", b["critic"], b["end"])
    shaped = credit("progress", b["critic"] - scale * potentials, b["end"] - scale * last, scale=scale)
    torch.testing.assert_close(shaped, plain)


@pytest.mark.parametrize("reward", ["progress_terminal", "promise", "terminal", "min"])
def test_no_other_reward_has_this_property(reward: str) -> None:
    b = random_batch(0)
    lengths = torch.full((6,), 8)

    def credit(name: str, critic: Tensor) -> Tensor:
        paid = rewards.load(name).step_rewards(b["values"], b["outcomes"], lengths, gamma=0.9)
        inputs = AdvantageInputs(paid.total, lengths, values_BT=critic)
        return advantages.load("turn_gae").estimate(inputs, gamma=0.9, lam=0.7).advantages

    plain = credit("outcome", b["critic"])
    for critic in (b["critic"], b["critic"] - b["values"][:, :-1]):
        assert (credit(reward, critic) - plain).abs().max() > 0.1


@pytest.mark.parametrize("advantage", ["group", "leave_one_out"])
def test_against_a_group_progress_is_outcome_exactly_which_is_why_it_is_refused(advantage: str) -> None:
    b = random_batch(1)
    values, lengths = b["values"].clone(), b["lengths"].clamp(min=1)
    groups = torch.tensor([0, 0, 0, 1, 1, 1])
    values[:3, 0], values[3:, 0] = 0.4, 0.7  # one prompt, one v_0

    def credit(name: str) -> Tensor:
        paid = rewards.load(name).step_rewards(values, b["outcomes"], lengths, gamma=0.9)
        inputs = AdvantageInputs(paid.total, lengths, groups_B=groups)
        return advantages.load(advantage).estimate(inputs, gamma=0.9).advantages

    torch.testing.assert_close(credit("progress"), credit("outcome"))
    assert (credit("terminal") - credit("outcome")).abs().max() > 0.1


def test_against_a_group_progress_terminal_is_terminal() -> None:
    b = random_batch(2)
    values, lengths = b["values"].clone(), b["lengths"].clamp(min=1)
    values[:, 0] = 0.4

    def credit(name: str) -> Tensor:
        paid = rewards.load(name).step_rewards(values, b["outcomes"], lengths, gamma=1.0)
        inputs = AdvantageInputs(paid.total, lengths, groups_B=torch.zeros(6, dtype=torch.long))
        return advantages.load("group").estimate(inputs, gamma=1.0).advantages

    torch.testing.assert_close(credit("progress_terminal"), credit("terminal"))
