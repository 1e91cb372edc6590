"""Each step reward by hand, what it sums up to, and the traps it does or does not fall into."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from rlprm.errors import ConfigError
from rlprm.functional.returns import discounted_suffix_sums
from rlprm.rl import rewards
from rlprm.rl.rewards import StepRewards

# One success of three steps, one failure of a single step. v_0 ... v_T in front of padding.
VALUES = torch.tensor([[0.5, 0.6, 0.4, 0.9], [0.2, 0.3, 0.0, 0.0]], dtype=torch.float64)
STATES = torch.tensor([[0.5, 0.7, 0.3], [0.2, 0.0, 0.0]], dtype=torch.float64)
OUTCOMES = torch.tensor([1.0, 0.0], dtype=torch.float64)
LENGTHS = torch.tensor([3, 1])
CUT_OFF = torch.tensor([True, True])


def paid(name: str, *, gamma: float = 0.5, **keywords: object) -> StepRewards:
    return rewards.load(name).step_rewards(VALUES, OUTCOMES, LENGTHS, gamma=gamma, **keywords)


def close(actual: Tensor, expected: list[list[float]]) -> None:
    torch.testing.assert_close(actual.double(), torch.tensor(expected).double(), rtol=0.0, atol=1e-6)


def ragged(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(6, 10, generator=generator, dtype=torch.float64)
    outcomes = torch.rand(6, generator=generator, dtype=torch.float64)
    lengths = torch.randint(1, 10, (6,), generator=generator)
    return values, outcomes, lengths, torch.rand(6, 9, generator=generator, dtype=torch.float64)


# --- by hand: γ = ½ ---


def test_outcome_by_hand() -> None:
    found = paid("outcome")
    close(found.prm, [[0, 0, 0], [0, 0, 0]])
    close(found.outcome, [[0, 0, 1], [0, 0, 0]])


def test_progress_by_hand() -> None:
    # .5·.6 - .5, .5·.4 - .6, -.4;  -.2
    close(paid("progress").prm, [[-0.2, -0.4, -0.4], [-0.2, 0, 0]])
    close(paid("progress").outcome, [[0, 0, 1], [0, 0, 0]])
    close(paid("progress", scale=2.0).prm, [[-0.4, -0.8, -0.8], [-0.4, 0, 0]])
    close(paid("progress", gamma=1.0).prm, [[0.1, -0.2, -0.4], [-0.2, 0, 0]])


def test_progress_on_states_by_hand() -> None:
    # .5·.7 - .5, .5·.3 - .7, -.3;  -.2: the values after actions enter nowhere
    close(paid("progress", states_BT=STATES).prm, [[-0.15, -0.55, -0.3], [-0.2, 0, 0]])


def test_progress_keeps_its_potential_where_it_is_bootstrapped() -> None:
    # last steps: .5·.9 - .4 and .5·.3 - .2; on states .5·.9 - .3 and .5·.3 - .2
    found = paid("progress", bootstrapped_B=CUT_OFF)
    close(found.prm, [[-0.2, -0.4, 0.05], [-0.05, 0, 0]])
    close(found.outcome, [[0, 0, 0], [0, 0, 0]])
    close(
        paid("progress", bootstrapped_B=CUT_OFF, states_BT=STATES).prm,
        [[-0.15, -0.55, 0.15], [-0.05, 0, 0]],
    )


def test_progress_terminal_by_hand() -> None:
    close(paid("progress_terminal").prm, [[-0.2, -0.4, 0.05], [-0.05, 0, 0]])
    close(paid("progress_terminal", gamma=1.0).prm, [[0.1, -0.2, 0.5], [0.1, 0, 0]])
    close(paid("progress_terminal", states_BT=STATES).prm, [[-0.15, -0.55, 0.15], [-0.05, 0, 0]])
    close(paid("progress_terminal").outcome, [[0, 0, 1], [0, 0, 0]])


def test_promise_by_hand() -> None:
    close(paid("promise", scale=2.0).prm, [[1.2, 0.8, 1.8], [0.6, 0, 0]])
    close(paid("promise").outcome, [[0, 0, 1], [0, 0, 0]])


def test_terminal_by_hand() -> None:
    close(paid("terminal", scale=2.0).prm, [[0, 0, 1.8], [0.6, 0, 0]])
    close(paid("terminal").outcome, [[0, 0, 1], [0, 0, 0]])
    close(paid("terminal", with_outcome=False).outcome, [[0, 0, 0], [0, 0, 0]])
    close(paid("terminal", bootstrapped_B=CUT_OFF).total, [[0, 0, 0], [0, 0, 0]])


def test_min_by_hand() -> None:
    # τ = .2 / ln 2: weights ∝ 2^(-v/.2) = 2^-3, 2^-2, 2^-4.5;  v - m = .1, -.1, .4
    raw = [2**-3.0, 2**-2.0, 2**-4.5]
    weights = [w / sum(raw) for w in raw]
    expected = [w * d for w, d in zip(weights, (0.1, -0.1, 0.4), strict=True)]
    found = paid("min", temperature=0.2 / math.log(2))
    close(found.prm, [expected, [-0.2, 0, 0]])
    close(found.outcome, [[0, 0, 1], [0, 0, 0]])
    close(paid("min", scale=2.0, midpoint=0.3, temperature=1e-3).prm, [[0, 0.2, 0], [0, 0, 0]])


# --- what the rewards of an episode sum up to ---


@pytest.mark.parametrize("gamma", [1.0, 0.9])
@pytest.mark.parametrize("on_states", [False, True])
def test_progress_telescopes_to_the_outcome_minus_the_first_potential(gamma: float, on_states: bool) -> None:
    values, outcomes, lengths, states = ragged(0)
    found = rewards.load("progress").step_rewards(
        values, outcomes, lengths, gamma=gamma, states_BT=states if on_states else None, scale=0.7
    )
    total = discounted_suffix_sums(found.total, gamma)[:, 0]
    first = states[:, 0] if on_states else values[:, 0]
    torch.testing.assert_close(total, gamma ** (lengths - 1) * outcomes - 0.7 * first)


def test_progress_terminal_telescopes_to_outcome_and_last_value_minus_the_first() -> None:
    values, outcomes, lengths, _ = ragged(1)
    found = rewards.load("progress_terminal").step_rewards(values, outcomes, lengths, gamma=0.9, scale=0.7)
    total = discounted_suffix_sums(found.total, 0.9)[:, 0]
    last = values[torch.arange(6), lengths]
    expected = 0.9 ** (lengths - 1) * (outcomes + 0.7 * 0.9 * last) - 0.7 * values[:, 0]
    torch.testing.assert_close(total, expected)


def test_the_sum_of_min_approaches_the_minimum_as_the_temperature_falls() -> None:
    values, outcomes, lengths, _ = ragged(2)
    lowest = torch.stack([values[b, 1 : n + 1].min() for b, n in enumerate(lengths.tolist())])
    mean = torch.stack([values[b, 1 : n + 1].mean() for b, n in enumerate(lengths.tolist())])
    sums = [
        rewards.load("min")
        .step_rewards(values, outcomes, lengths, gamma=1.0, temperature=t, midpoint=0.25, scale=3.0)
        .prm.sum(1)
        for t in (1e-5, 0.02, 0.2, 1e5)
    ]
    torch.testing.assert_close(sums[0], 3.0 * (lowest - 0.25))
    torch.testing.assert_close(sums[3], 3.0 * (mean - 0.25), rtol=0, atol=1e-4)
    for colder, warmer in pairwise(sums):
        assert (colder <= warmer + 1e-9).all()


# --- where the critic starts ---


@pytest.mark.parametrize(
    ("name", "settings", "factor"),
    [
        ("outcome", {}, 1.0),
        ("progress", {}, 1.0),
        ("progress", {"scale": 0.25}, 1.0),
        ("progress_terminal", {"scale": 0.25}, 1.0),
        ("terminal", {"scale": 0.25}, 1.25),
        ("terminal", {"scale": 0.25, "with_outcome": False}, 0.25),
        ("promise", {}, None),
        ("min", {}, None),
    ],
)
@pytest.mark.trap("cold critic")
def test_trap_a_critic_that_starts_cold_ruins_the_first_updates(
    name: str, settings: dict[str, float], factor: float | None
) -> None:
    assert rewards.critic_factor(name, settings) == factor
    if factor is None:
        return
    # At the truth (v_t: the expected outcome, γ = 1) the expected return from step t is k v_{t-1}, plus the
    # potential's differences if the critic is spared them.
    # A tree: v_0 = ½ leads to v_1 = .8 or .2, that to success or failure.
    values = torch.tensor([[0.5, 0.8, 1.0], [0.5, 0.8, 0.0], [0.5, 0.2, 1.0], [0.5, 0.2, 0.0]])
    chances = torch.tensor([0.4, 0.1, 0.1, 0.4])
    outcomes = values[:, 2].clone()
    found = rewards.load(name).step_rewards(values, outcomes, torch.full((4,), 2), gamma=1.0, **settings)
    to_go = discounted_suffix_sums(found.total, 1.0)
    if found.potential_BT1 is not None:
        to_go = to_go + found.potential_BT1[:, :-1]
    assert float(chances @ to_go[:, 0]) == pytest.approx(factor * 0.5, abs=1e-6)
    for rows, value in (([0, 1], 0.8), ([2, 3], 0.2)):
        expected = float(chances[rows] @ to_go[rows, 1] / chances[rows].sum())
        assert expected == pytest.approx(factor * value, abs=1e-6)


# --- traps ---


def endings(name: str, steps_before: int, **settings: float) -> Tensor:
    """The rewards of the last two steps of an episode that waited at the value ½ before."""
    values = torch.tensor([[0.5] * (steps_before + 1) + [0.8, 0.9]])
    lengths = torch.tensor([steps_before + 2])
    return (
        rewards.load(name).step_rewards(values, torch.ones(1), lengths, gamma=0.9, **settings).total[0, -2:]
    )


@pytest.mark.parametrize("name", ["outcome", "progress", "progress_terminal", "promise", "terminal"])
@pytest.mark.trap("discount from the start")
def test_trap_the_reward_of_a_step_is_not_discounted_from_the_start_of_the_episode(name: str) -> None:
    torch.testing.assert_close(endings(name, 1), endings(name, 20))


@pytest.mark.trap("sum of scores")
def test_trap_a_sum_of_scores_favours_long_episodes_and_a_minimum_does_not() -> None:
    # The same judgement at every step, ½ or .9, over 2 and over 20 steps; no outcome.
    def total(name: str, value: float, steps: int, **settings: float) -> float:
        values, lengths = torch.full((1, steps + 1), value), torch.tensor([steps])
        paid = rewards.load(name).step_rewards(values, torch.zeros(1), lengths, gamma=1.0, **settings)
        return float(paid.prm.sum())

    assert total("promise", 0.5, 20) == pytest.approx(10 * total("promise", 0.5, 2))
    assert total("promise", 0.5, 20) > total("promise", 0.9, 2)  # length beats quality
    for name in ("progress", "progress_terminal", "terminal", "min"):
        for value in (0.5, 0.9):
            assert total(name, value, 20) == pytest.approx(total(name, value, 2), abs=1e-6)
    assert total("min", 0.5, 20) < total("min", 0.9, 2)


@pytest.mark.trap("farmed reward")
def test_trap_a_loop_is_not_farmed_with_progress_and_is_with_promise() -> None:
    # A detour .5 -> .9 -> .5, walked three times.
    walk = torch.tensor([[0.5, 0.9, 0.5, 0.9, 0.5, 0.9, 0.5]])

    def per_round(name: str, gamma: float) -> list[float]:
        found = rewards.load(name).step_rewards(walk, torch.zeros(1), torch.tensor([6]), gamma=gamma)
        return [float(found.prm[0, i] + gamma * found.prm[0, i + 1]) for i in (0, 2)]

    assert per_round("progress", 1.0) == pytest.approx([0.0, 0.0], abs=1e-6)
    assert all(paid < 0 for paid in per_round("progress", 0.9))
    assert all(paid > 1 for paid in per_round("promise", 1.0))


@pytest.mark.trap("broken telescope")
def test_trap_rewards_clipped_or_centred_one_by_one_no_longer_telescope() -> None:
    values, outcomes, lengths, _ = ragged(3)
    found = rewards.load("progress").step_rewards(values, outcomes, lengths, gamma=1.0).prm
    torch.testing.assert_close(found.sum(1), -values[:, 0])
    exists = torch.arange(9) < lengths.unsqueeze(1)
    for spoilt in (found.clamp(min=0), (found - found.mean()) * exists):
        assert ((spoilt.sum(1) + values[:, 0]).abs() > 0.05).any()
    # Values outside of [0, 1] are clipped before the differences: the sum still telescopes.
    wild = values * 3.0 - 1.0
    found = rewards.load("progress").step_rewards(wild, outcomes, lengths, gamma=1.0).prm
    torch.testing.assert_close(found.sum(1), -wild[:, 0].clamp(0, 1))


def test_min_with_positive_scores_pays_for_a_new_worst_step_and_the_midpoint_prevents_it() -> None:
    # After a step worth .4, the next one may be worth .6 or .1. What follows step 1 is paid:
    def to_go(second: float, midpoint: float) -> float:
        values = torch.tensor([[0.5, 0.4, second]])
        found = rewards.load("min").step_rewards(
            values, torch.zeros(1), torch.tensor([2]), gamma=1.0, midpoint=midpoint, temperature=0.01
        )
        return float(found.prm[0, 1])

    assert to_go(0.1, 0.0) > to_go(0.6, 0.0) + 0.05  # the worse step earns more
    assert to_go(0.1, 0.5) < to_go(0.6, 0.5) - 0.3
    assert to_go(0.1, 1.0) < to_go(0.6, 1.0) - 0.8


def test_min_checks_its_own_settings() -> None:
    with pytest.raises(ConfigError, match="temperature must be a finite number above 0, got 0"):
        rewards.check_settings("min", {"temperature": 0})
    with pytest.raises(ConfigError, match="midpoint must be a number, got 'low'"):
        rewards.check_settings("min", {"midpoint": "low"})
