"""Clipped losses by hand, the gradient of a softmax policy, and junk where nothing counts."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rlprm.errors import ConfigError
from rlprm.functional.ppo import policy_loss, truncated_importance_weights, value_loss

JUNK = [-math.inf, math.inf, math.nan, 1e9, -1e9, 0.0]


def gradient(loss: Tensor, leaf: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss, leaf)
    return found


def with_ratio(*ratios: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities whose ratios to the old ones are the given numbers."""
    old = torch.linspace(-2.0, -1.0, len(ratios), dtype=torch.float64)
    return (old + torch.tensor(ratios, dtype=torch.float64).log()).requires_grad_(), old


def f64(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


# --- the policy's loss ---


def test_clipped_objective_and_gradient_by_hand() -> None:
    # ρ = 1.1, 1.5, 1.5, .5, .5  A = 1, 1, -1, 1, -1  ε = .2
    # min(ρA, clip(ρ)A) = 1.1, 1.2, -1.5, .5, -.8;  sum .5;  over 5: loss -.1
    # ∂/∂log π = ρA where the unclipped one is taken, 0 where it is clipped (the 2nd and the 5th)
    logprobs, old = with_ratio(1.1, 1.5, 1.5, 0.5, 0.5)
    found = policy_loss(logprobs, old, f64(1, 1, -1, 1, -1), torch.ones(5), denominator=5)
    assert found.loss.item() == pytest.approx(-0.1)
    torch.testing.assert_close(gradient(found.loss, logprobs), -f64(1.1, 0, -1.5, 0.5, 0) / 5)
    assert found.clip_fraction.item() == pytest.approx(2 / 5)
    # ρ - 1 - ln ρ:  .1 - ln 1.1,  .5 - ln 1.5 twice,  -.5 - ln .5 twice
    kl = (0.1 - math.log(1.1) + 2 * (0.5 - math.log(1.5)) + 2 * (-0.5 - math.log(0.5))) / 5
    assert found.approx_kl.item() == pytest.approx(kl)


def test_the_two_sides_are_clipped_apart() -> None:
    logprobs, old = with_ratio(1.25, 0.85)
    found = policy_loss(logprobs, old, f64(1, -1), torch.ones(2), denominator=1, clip_low=0.1, clip_high=0.3)
    assert found.loss.item() == pytest.approx(-(1.25 - 0.9))
    assert found.clip_fraction.item() == 1


def test_a_ratio_beyond_all_bounds_stays_finite_and_pulls_nowhere() -> None:
    logprobs, old = torch.tensor([-1.0, -1.0], requires_grad=True), torch.tensor([-1.0, -801.0])
    found = policy_loss(logprobs, old, torch.tensor([-1.0, -1.0]), torch.ones(2), denominator=2)
    assert bool(torch.isfinite(found.loss))
    assert bool(torch.isfinite(found.approx_kl))
    assert gradient(found.loss, logprobs).tolist() == pytest.approx([0.5, 0.0])


def test_dual_clip_bites_for_negative_advantages_only() -> None:
    # ρ = 5, A = ±2: without, -10 and clip(5) · 2 = 2.4. With d = 3 the negative one stops at -6.
    for advantage, plain, dual in ((-2.0, -10.0, -6.0), (2.0, 2.4, 2.4)):
        logprobs, old = with_ratio(5.0)
        arguments = (logprobs, old, f64(advantage), torch.ones(1))
        assert policy_loss(*arguments, denominator=1).loss.item() == pytest.approx(-plain)
        found = policy_loss(*arguments, denominator=1, dual_clip=3.0)
        assert found.loss.item() == pytest.approx(-dual)
        assert gradient(found.loss, logprobs).item() == 0
        assert found.clip_fraction.item() == 1
    logprobs, old = with_ratio(2.9)
    for dual in (None, 3.0):  # within the bound nothing changes
        found = policy_loss(logprobs, old, f64(-1.0), torch.ones(1), denominator=1, dual_clip=dual)
        assert found.loss.item() == pytest.approx(2.9)
        assert found.clip_fraction.item() == 0


def test_at_ratio_one_the_gradient_is_the_policy_gradient_of_a_softmax_policy() -> None:
    # Logits ln 2, 0, 0: π = ½, ¼, ¼. Sampled actions 0 and 2 with advantages 3 and -1:
    # -∂/∂z = [3 (e_0 - π) - (e_2 - π)] / 2 = [3 (½, -¼, -¼) + (½, ¼, -¾)] / 2 = (1, -¼, -¾)
    logits = torch.tensor([math.log(2), 0.0, 0.0], dtype=torch.float64, requires_grad=True)
    actions, advantages = torch.tensor([0, 2]), f64(3, -1)
    logprobs = logits.log_softmax(0)[actions]
    found = policy_loss(logprobs, logprobs.detach(), advantages, torch.ones(2), denominator=2, dual_clip=3.0)
    torch.testing.assert_close(gradient(found.loss, logits), -f64(1, -0.25, -0.75))
    assert found.clip_fraction.item() == 0
    assert found.approx_kl.item() == 0
    plain = -(logits.log_softmax(0)[actions] * advantages).sum() / 2
    torch.testing.assert_close(gradient(plain, logits), -f64(1, -0.25, -0.75))


def test_away_from_ratio_one_the_gradient_is_that_of_the_surrogate() -> None:
    # π = ½, ¼, ¼ now, π_old = ⅓ each; action 1 with A = 2: ρ = ¾ is unclipped for A > 0,
    # -∂/∂z = ρ A (e_1 - π) = 1.5 (-½, ¾, -¼)
    logits = torch.tensor([math.log(2), 0.0, 0.0], dtype=torch.float64, requires_grad=True)
    found = policy_loss(
        logits.log_softmax(0)[1:2], f64(math.log(1 / 3)), f64(2), torch.ones(1), denominator=1
    )
    torch.testing.assert_close(gradient(found.loss, logits), -1.5 * f64(-0.5, 0.75, -0.25))


def test_weights_multiply_their_terms() -> None:
    logprobs, old = with_ratio(1.0, 1.1)
    found = policy_loss(logprobs, old, f64(1, -1), torch.ones(2), denominator=1, weights=f64(0.5, 2.0))
    assert found.loss.item() == pytest.approx(-(0.5 - 2.2))


def test_an_update_in_parts_equals_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    logprobs, old, advantages = torch.randn(3, 6, 4, generator=generator)
    mask = torch.rand(6, 4, generator=generator) > 0.4
    count = mask.sum()
    whole = policy_loss(logprobs, old, advantages, mask, denominator=count)
    parts = [
        policy_loss(logprobs[i], old[i], advantages[i], mask[i], denominator=count)
        for i in (slice(0, 1), slice(1, 6))
    ]
    for name in ("loss", "clip_fraction", "approx_kl"):
        torch.testing.assert_close(getattr(whole, name), getattr(parts[0], name) + getattr(parts[1], name))


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("dual_clip", [None, 3.0])
@pytest.mark.trap("sentinel")
def test_trap_a_sentinel_log_probability_leaks_into_nothing(junk: float, dual_clip: float | None) -> None:
    logprobs, old = with_ratio(1.1, 1.5, 0.7)
    mask = torch.tensor([1, 1, 1, 0, 0])
    dirty = torch.cat([logprobs.detach(), f64(junk, -1.0)]).requires_grad_()
    arguments = {"denominator": 3, "dual_clip": dual_clip}
    right = policy_loss(logprobs, old, f64(1, -2, 3), torch.ones(3), **arguments)
    found = policy_loss(
        dirty,
        torch.cat([old, f64(-1.0, junk)]),
        torch.cat([f64(1, -2, 3), f64(junk, junk)]),
        mask,
        weights=torch.cat([f64(1, 1, 1), f64(junk, junk)]),
        **arguments,
    )
    for expected, actual in zip(right, found, strict=True):
        torch.testing.assert_close(actual, expected)
    pull = gradient(found.loss, dirty)
    assert pull[3:].tolist() == [0, 0]
    torch.testing.assert_close(pull[:3], gradient(right.loss, logprobs))


def test_half_precision_log_probabilities_are_compared_in_float32() -> None:
    half = torch.full((2,), -1.0, dtype=torch.bfloat16)
    found = policy_loss(half, torch.full((2,), -1.001), torch.ones(2), torch.ones(2), denominator=2)
    assert found.loss.dtype == torch.float32
    assert found.loss.item() == pytest.approx(-math.exp(0.001), abs=1e-6)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"clip_low": 1.5}, r"clip_low must lie in \[0, 1\]"),
        ({"clip_high": 0.0}, "clip_high must be a finite number above 0"),
        ({"dual_clip": 1.0}, "dual_clip must be a finite number above 1"),
    ],
)
def test_clips_that_make_no_sense_are_refused(setting: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        policy_loss(torch.zeros(1), torch.zeros(1), torch.zeros(1), torch.ones(1), denominator=1, **setting)


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match=r"advantages has shape \(2, 1\), expected \(2, 3\)"):
        policy_loss(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 1), torch.ones(2, 3), denominator=1)
    with pytest.raises(ValueError, match=r"mask has shape \(3,\), expected \(2, 3\)"):
        policy_loss(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 3), torch.ones(3), denominator=1)


# --- the critic's loss ---


def test_value_loss_by_hand() -> None:
    # V - R = 1, -2: ½ (1 + 4) / 2
    values = f64(3, 1).requires_grad_()
    found = value_loss(values, f64(0, 0), f64(2, 3), torch.ones(2), denominator=2)
    assert found.loss.item() == pytest.approx(1.25)
    torch.testing.assert_close(gradient(found.loss, values), f64(0.5, -1))
    assert found.clip_fraction.item() == 0


def test_value_clip_stops_a_value_that_moved_far_towards_its_target_and_no_other() -> None:
    # V_old = 0, clip ±.5.
    #   V = .8, R = 1: clipped .5, error -.5 is the larger: ½ · .25, no pull
    #   V = .8, R = -1: away from the target: error 1.8 is larger than 1.5: ½ · 3.24, pull 1.8
    #   V = .3, R = 1: inside: ½ · .49, pull -.7
    values = f64(0.8, 0.8, 0.3).requires_grad_()
    found = value_loss(values, f64(0, 0, 0), f64(1, -1, 1), torch.ones(3), denominator=1, clip=0.5)
    assert found.loss.item() == pytest.approx(0.5 * (0.25 + 3.24 + 0.49))
    torch.testing.assert_close(gradient(found.loss, values), f64(0, 1.8, -0.7))
    assert found.clip_fraction.item() == 1


@pytest.mark.parametrize("junk", JUNK)
def test_masked_values_neither_cost_nor_pull(junk: float) -> None:
    values = f64(0.8, junk).requires_grad_()
    found = value_loss(values, f64(0, junk), f64(1, junk), torch.tensor([1, 0]), denominator=1, clip=0.5)
    assert found.loss.item() == pytest.approx(0.125)
    assert gradient(found.loss, values).tolist() == [0, 0]
    with pytest.raises(ConfigError, match="the value clip must be a finite number above 0, got 0"):
        value_loss(values, values, values, torch.ones(2), denominator=1, clip=0.0)


# --- sampler and trainer ---


@pytest.mark.trap("sampler mismatch")
def test_trap_sampler_and_trainer_disagree_and_the_weight_is_capped() -> None:
    # π_old / μ = 1.5, 8, ½; the cap is 2; a masked token weighs nothing
    ratios = f64(1.5, 8.0, 0.5)
    sampler = torch.cat([f64(-1, -2, -3), f64(-math.inf)])
    trainer = torch.cat([f64(-1, -2, -3) + ratios.log(), f64(0.0)]).requires_grad_()
    weights = truncated_importance_weights(trainer, sampler, torch.tensor([1, 1, 1, 0]), cap=2.0)
    torch.testing.assert_close(weights, f64(1.5, 2.0, 0.5, 0.0))
    assert not weights.requires_grad
    same = truncated_importance_weights(sampler, sampler, torch.tensor([1, 1, 1, 0]), cap=2.0)
    assert same.tolist() == [1, 1, 1, 0]
    with pytest.raises(ConfigError, match="cap of importance weights must be a finite number above 0"):
        truncated_importance_weights(trainer, sampler, torch.ones(4), cap=0.0)


def test_a_weight_that_would_overflow_is_capped_too() -> None:
    weights = truncated_importance_weights(f64(0.0), f64(-1e6), torch.ones(1), cap=2.0)
    assert weights.item() == pytest.approx(2.0)
