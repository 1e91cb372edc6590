"""Log-probabilities of chosen tokens."""

from __future__ import annotations

import math

import pytest
import torch

from rlprm.functional.logprobs import token_logprobs


def test_log_probabilities_by_hand() -> None:
    # ¾, ¼;  certain;  uniform over 4
    logits = torch.tensor(
        [[math.log(3.0), 0.0, -torch.inf, -torch.inf], [900.0, 0, 0, 0], [7.0, 7.0, 7.0, 7.0]]
    )
    for ids, expected in (([0, 0, 3], [0.75, 1.0, 0.25]), ([1, 0, 1], [0.25, 1.0, 0.25])):
        found = token_logprobs(logits, torch.tensor(ids))
        torch.testing.assert_close(found, torch.tensor(expected).log())


def test_value_and_gradient_are_those_of_log_softmax() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(9, 13, generator=generator, dtype=torch.float64, requires_grad=True)
    ids = torch.randint(13, (9,), generator=generator)
    weights = torch.randn(9, generator=generator, dtype=torch.float64)
    found = token_logprobs(logits, ids)
    expected = torch.log_softmax(logits, dim=1)[torch.arange(9), ids]
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad((weights * x).sum(), logits)[0] for x in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_an_impossible_token_spoils_nobodys_gradient() -> None:
    logits = torch.tensor([[1.0, -torch.inf, 0.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(token_logprobs(logits, torch.tensor([0])).sum(), logits)
    assert gradient.isfinite().all()
    assert gradient[0, 1] == 0


def test_half_precision_is_summed_in_float32() -> None:
    # In bfloat16 the sum of 50,000 equal terms would stop growing at 256.
    found = token_logprobs(torch.zeros(2, 50_000, dtype=torch.bfloat16), torch.tensor([0, 49_999]))
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx([-math.log(50_000)] * 2, rel=1e-6)


def test_one_token_is_chosen_at_each_place() -> None:
    with pytest.raises(ValueError, match=r"ids_N has shape \(3,\), expected \(2,\)"):
        token_logprobs(torch.zeros(2, 5), torch.zeros(3, dtype=torch.long))
