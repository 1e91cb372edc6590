"""Drawing tokens: the right distribution from given uniform numbers, and seeds that never meet."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlprm.policies.base import action_seed, uniforms
from rlprm.policies.decoding.base import sample

LOGITS = torch.tensor([2.0, -1.0, 0.5, 0.0, -30.0, 1.5, 0.5])
LARGEST_BELOW_ONE = 1 - 2**-24


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_evenly_spread_uniforms_give_each_token_its_share(temperature: float) -> None:
    count = 20_000
    spread = (torch.arange(count) + 0.5) / count
    ids, logprobs = sample(LOGITS.expand(count, -1), spread, temperature)
    expected = torch.softmax(LOGITS.double() / temperature, dim=-1)
    share = torch.bincount(ids, minlength=7) / count
    # Inversion cuts [0, 1) at the cumulative probabilities: each share is right up to one draw at either end.
    assert (share - expected).abs().max() <= 2 / count
    assert logprobs.exp() == pytest.approx(expected[ids].numpy(), abs=1e-6)


def test_temperature_zero_takes_the_likeliest_whatever_the_uniform_number() -> None:
    ids, logprobs = sample(LOGITS.expand(3, -1), torch.tensor([0.0, 0.5, LARGEST_BELOW_ONE]), 0.0)
    assert ids.tolist() == [0, 0, 0]
    expected = torch.log_softmax(LOGITS, dim=-1)[0].item()
    assert logprobs.tolist() == pytest.approx([expected] * 3)


def test_an_impossible_token_is_never_drawn() -> None:
    never = float("-inf")
    logits = torch.tensor([never, 0.0, never, never, 1.0, 0.3, never]).expand(5, -1)
    uniform = torch.tensor([0.0, 1e-30, 0.3, 0.99, LARGEST_BELOW_ONE])
    ids, logprobs = sample(logits, uniform, 1.0)
    assert set(ids.tolist()) <= {1, 4, 5}
    assert (ids[0], ids[-1]) == (1, 5)
    assert logprobs.isfinite().all()


def test_each_row_has_its_own_distribution_and_uniform_number() -> None:
    logits = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0], [0.0, 0.0]])
    ids, _ = sample(logits, torch.tensor([0.4, 0.9, 0.1, 0.6]), 1.0)
    assert ids.tolist() == [0, 0, 1, 1]


def test_half_precision_logits_are_sampled_in_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 50_000, generator=generator).to(torch.bfloat16).expand(200, -1)
    ids, logprobs = sample(logits, (torch.arange(200) + 0.5) / 200, 1.0)
    assert logprobs.dtype == torch.float32
    # In bfloat16 the cumulative sum would stop growing after a few hundred tokens.
    counts = np.histogram(ids.numpy(), bins=5, range=(0, 50_000))[0]
    assert counts.min() > 25


def test_uniform_numbers_are_a_function_of_their_own_row_and_lie_below_one() -> None:
    seeds = [action_seed(7, turn) for turn in range(500)]
    together = uniforms(seeds, 40)
    assert together.shape == (500, 40)
    assert together.dtype == np.float32
    assert together.min() >= 0
    assert together.max() < 1
    for row in (0, 17, 499):
        np.testing.assert_array_equal(uniforms([seeds[row]], 40)[0], together[row])
    # The first numbers of a longer row are those of a shorter one.
    np.testing.assert_array_equal(uniforms(seeds[:3], 8), together[:3, :8])
    assert abs(together.mean() - 0.5) < 0.01
    assert abs(np.corrcoef(together[:-1, 0], together[1:, 0])[0, 1]) < 0.15


def test_turns_branches_and_episodes_have_seeds_of_their_own() -> None:
    episodes = [0, 1, 2, 2**32, 2**62 + 1]
    seeds = [action_seed(e, turn, branch) for e in episodes for turn in range(20) for branch in range(20)]
    assert len(set(seeds)) == len(seeds)
    assert action_seed(5, 3) == action_seed(5, 3, 0) != action_seed(5, 0, 3)
    assert all(0 <= seed < 2**63 for seed in seeds)
