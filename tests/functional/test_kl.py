"""Estimators of KL(π || π_ref) against sums over all tokens; which gradients are right."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rlprm.errors import ConfigError
from rlprm.functional.kl import KL_ESTIMATORS, KL_LOSSES, kl_loss, kl_values

REFERENCE = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64))
OLD = torch.log(torch.tensor([0.2, 0.2, 0.2, 0.4], dtype=torch.float64))
TOKENS = torch.ones(4)


def policy() -> Tensor:
    return torch.tensor([0.3, -0.2, 0.8, 0.1], dtype=torch.float64, requires_grad=True)


def exact_kl(logits: Tensor) -> Tensor:
    logprobs = logits.log_softmax(0)
    return (logprobs.exp() * (logprobs - REFERENCE)).sum()


def expected(terms_V: Tensor, sampled_from: Tensor) -> Tensor:
    """The expectation over tokens drawn from a fixed distribution; the draw itself has no gradient."""
    return (sampled_from.exp().detach() * terms_V).sum()


def loss_terms(logprobs: Tensor, old_logprobs: Tensor, kind: str) -> Tensor:
    """What each token would add to the loss, were it sampled."""
    rows = zip(logprobs.split(1), REFERENCE.split(1), old_logprobs.split(1), strict=True)
    return torch.stack([kl_loss(*row, TOKENS[:1], denominator=1, kind=kind) for row in rows])


def gradient(loss: Tensor, leaf: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss, leaf, retain_graph=True)
    return found


def test_estimates_by_hand() -> None:
    # log ratio ln 2: k1 = ln 2, k2 = ½ ln² 2, k3 = ½ - 1 + ln 2
    logprobs, reference = torch.tensor([math.log(0.5)]), torch.tensor([math.log(0.25)])
    log2 = math.log(2)
    for kind, value in (("k1", log2), ("k2", 0.5 * log2**2), ("k3", log2 - 0.5)):
        assert kl_values(logprobs, reference, torch.ones(1), kind=kind).item() == pytest.approx(value)
    with pytest.raises(ConfigError, match="unknown KL estimator 'k4'; known: k1, k2, k3"):
        kl_values(logprobs, reference, torch.ones(1), kind="k4")


@pytest.mark.parametrize("kind", ["k1", "k3"])
def test_k1_and_k3_are_unbiased_as_values(kind: str) -> None:
    logprobs = policy().log_softmax(0)
    estimate = expected(kl_values(logprobs, REFERENCE, TOKENS, kind=kind), logprobs)
    torch.testing.assert_close(estimate, exact_kl(policy()).detach())


def test_values_carry_no_gradient_and_k3_is_never_negative() -> None:
    logprobs = policy().log_softmax(0)
    for kind in KL_ESTIMATORS:
        assert not kl_values(logprobs, REFERENCE, TOKENS, kind=kind).requires_grad
    assert kl_values(logprobs, REFERENCE, TOKENS, kind="k3").ge(0).all()


@pytest.mark.parametrize("kind", KL_LOSSES)
@pytest.mark.trap("k3 in the loss")
def test_trap_k3_inside_the_loss_is_biased_and_what_is_offered_is_not(kind: str) -> None:
    logits = policy()
    logprobs = logits.log_softmax(0)
    right = gradient(exact_kl(logits), logits)
    # Each token's term of kl_loss, weighted with the chance that the policy samples it.
    terms = loss_terms(logprobs, logprobs, kind)
    found = gradient(expected(terms, logprobs), logits)
    torch.testing.assert_close(found, right)

    logprobs = logits.log_softmax(0)
    k3 = gradient(expected(KL_ESTIMATORS["k3"](logprobs - REFERENCE), logprobs), logits)
    assert (k3 - right).abs().max() > 0.02
    forward = (REFERENCE.exp() * (REFERENCE - logits.log_softmax(0))).sum()  # KL(π_ref || π)
    torch.testing.assert_close(k3, gradient(forward, logits))
    logprobs = logits.log_softmax(0)
    k1 = gradient(expected(KL_ESTIMATORS["k1"](logprobs - REFERENCE), logprobs), logits)
    torch.testing.assert_close(k1, torch.zeros(4, dtype=torch.float64))
    with pytest.raises(ConfigError, match="unknown KL loss 'k3'; known: unbiased, k2"):
        kl_loss(logprobs, REFERENCE, OLD, TOKENS, denominator=1, kind="k3")


def test_the_unbiased_loss_stays_right_when_another_policy_sampled() -> None:
    def off_policy_gradient(kind: str) -> Tensor:
        logits = policy()
        logprobs = logits.log_softmax(0)
        terms = loss_terms(logprobs, OLD, kind)
        return gradient(expected(terms, OLD), logits)

    logits = policy()
    right = gradient(exact_kl(logits), logits)
    torch.testing.assert_close(off_policy_gradient("unbiased"), right)
    assert (off_policy_gradient("k2") - right).abs().max() > 0.01  # as documented


def test_the_unbiased_loss_is_an_unbiased_value_too() -> None:
    logprobs = policy().log_softmax(0).detach()
    terms = loss_terms(logprobs, OLD, "unbiased")
    torch.testing.assert_close(expected(terms, OLD), exact_kl(policy()).detach())


@pytest.mark.parametrize("junk", [-math.inf, math.inf, math.nan, 1e9, -1e9])
def test_masked_tokens_neither_count_nor_pull(junk: float) -> None:
    clean = torch.tensor([-1.0, -2.0], requires_grad=True)
    dirty = torch.tensor([-1.0, -2.0, junk], requires_grad=True)
    reference, old = torch.tensor([-1.5, -1.0]), torch.tensor([-1.1, -2.2])
    mask = torch.tensor([1, 1, 0])

    def padded(x: Tensor) -> Tensor:
        return torch.cat([x, torch.tensor([junk])])

    for kind in KL_LOSSES:
        right = kl_loss(clean, reference, old, torch.ones(2), denominator=2, kind=kind)
        found = kl_loss(dirty, padded(reference), padded(old), mask, denominator=2, kind=kind)
        assert torch.equal(found, right)
        assert gradient(found, dirty).tolist() == [*gradient(right, clean).tolist(), 0.0]
    assert kl_values(dirty, padded(reference), mask)[2] == 0


def test_denominators_are_global() -> None:
    logprobs, reference, old = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    whole = kl_loss(logprobs, reference, old, torch.ones(6), denominator=6)
    parts = [
        kl_loss(logprobs[i], reference[i], old[i], torch.ones(6)[i], denominator=6)
        for i in (slice(0, 2), slice(2, 6))
    ]
    torch.testing.assert_close(parts[0] + parts[1], whole)
