"""Entropy from logits."""

from __future__ import annotations

import math

import pytest
import torch

from rlprm.functional.logprobs import entropy


def test_entropy_by_hand() -> None:
    logits = torch.tensor(
        [[0.0, 0.0, 0.0, 0.0], [math.log(3.0), 0.0, -torch.inf, -torch.inf], [900.0, 0, 0, 0]]
    )
    # uniform over 4: ln 4;  ¾, ¼: ln 4 - ¾ ln 3;  certain: 0
    expected = torch.tensor([math.log(4), math.log(4) - 0.75 * math.log(3), 0.0])
    torch.testing.assert_close(entropy(logits), expected)


def test_chunks_change_neither_value_nor_gradient() -> None:
    logits = torch.randn(3, 7, 11, generator=torch.Generator().manual_seed(0), requires_grad=True)
    results = []
    for chunk in (1, 4, 1024):
        value = entropy(logits, chunk=chunk)
        assert value.shape == (3, 7)
        results.append((value, torch.autograd.grad(value.sum(), logits)[0]))
    reference = torch.distributions.Categorical(logits=logits).entropy()
    gradient = torch.autograd.grad(reference.sum(), logits)[0]
    for value, found in results:
        torch.testing.assert_close(value, reference)
        torch.testing.assert_close(found, gradient)


def test_impossible_tokens_do_not_spoil_the_gradient() -> None:
    logits = torch.tensor([[1.0, -torch.inf, 0.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(entropy(logits).sum(), logits)
    assert gradient.isfinite().all()
    assert gradient[0, 1] == 0


def test_half_precision_is_summed_in_float32() -> None:
    logits = torch.zeros(2, 50_000, dtype=torch.bfloat16)
    assert entropy(logits).dtype == torch.float32
    assert entropy(logits)[0].item() == pytest.approx(math.log(50_000), rel=1e-5)
