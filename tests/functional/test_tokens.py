"""Numbers of steps on their tokens and back; what cannot be laid out is refused."""

from __future__ import annotations

import pytest
import torch

from rlprm.errors import DataError
from rlprm.functional.tokens import (
    TokenLayout,
    put_on_first_tokens,
    put_on_last_tokens,
    spread_over_tokens,
    sum_over_tokens,
    token_layout,
)

# Row 0: prompt, prompt, [a a close(forced)], obs, [a close(sampled)].   Row 1: prompt, [a], then padding.
MASK = torch.tensor([[0, 0, 1, 1, 0, 0, 1, 1], [0, 1, 0, 0, 0, 0, 0, 0]])
STARTS = torch.tensor([[2, 6], [1, -7]])
ENDS = torch.tensor([[4, 7], [1, 99]])
LENGTHS = torch.tensor([2, 1])


def layout() -> TokenLayout:
    return token_layout(MASK, STARTS, ENDS, LENGTHS)


def test_every_sampled_token_knows_its_step_and_every_step_its_last_sampled_token() -> None:
    found = layout()
    assert found.step_BL.tolist() == [[-1, -1, 0, 0, -1, -1, 1, 1], [-1, 0, -1, -1, -1, -1, -1, -1]]
    assert found.last_BT.tolist() == [[3, 7], [1, -1]]
    assert torch.equal(found.sampled, MASK == 1)


def test_neighbouring_steps_without_anything_between_stay_apart() -> None:
    found = token_layout(
        torch.ones(1, 4), torch.tensor([[0, 1, 3]]), torch.tensor([[0, 2, 3]]), torch.tensor([3])
    )
    assert found.step_BL.tolist() == [[0, 1, 1, 2]]
    assert found.last_BT.tolist() == [[0, 2, 3]]


def test_step_numbers_on_tokens_and_token_numbers_in_steps() -> None:
    nan = float("nan")
    of_steps = torch.tensor([[0.5, -1.0], [2.0, nan]])
    assert spread_over_tokens(of_steps, layout()).tolist() == [
        [0, 0, 0.5, 0.5, 0, 0, -1, -1],
        [0, 2, 0, 0, 0, 0, 0, 0],
    ]
    assert put_on_last_tokens(of_steps, layout()).tolist() == [
        [0, 0, 0, 0.5, 0, 0, 0, -1],
        [0, 2, 0, 0, 0, 0, 0, 0],
    ]
    assert put_on_first_tokens(of_steps, layout(), STARTS).tolist() == [
        [0, 0, 0.5, 0, 0, 0, -1, 0],
        [0, 2, 0, 0, 0, 0, 0, 0],
    ]
    of_tokens = torch.tensor([[nan, 7, 1, 2, 9, nan, 3, 4], [7, 5, nan, nan, nan, nan, nan, nan]])
    assert sum_over_tokens(of_tokens, layout()).tolist() == [[3, 7], [5, 0]]


def test_the_first_token_of_an_action_is_a_sampled_one() -> None:
    first = put_on_first_tokens(torch.ones(2, 2), layout(), STARTS)
    assert torch.equal(first != 0, (first != 0) & layout().sampled)
    assert first.sum(1).tolist() == LENGTHS.tolist()


def test_what_does_not_fit_the_steps_is_refused() -> None:
    with pytest.raises(ValueError, match=r"x_BT has shape \(2, 3\), expected \(2, 2\)"):
        put_on_first_tokens(torch.zeros(2, 3), layout(), STARTS)
    with pytest.raises(ValueError, match=r"starts_BT has shape \(2, 1\), expected \(2, 2\)"):
        put_on_first_tokens(torch.zeros(2, 2), layout(), STARTS[:, :1])


def test_the_log_probability_of_a_turn_passes_its_gradient_to_its_tokens_alone() -> None:
    logprobs = torch.full((2, 8), -0.5, requires_grad=True)
    sum_over_tokens(logprobs, layout())[0, 0].backward()  # type: ignore[no-untyped-call]
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [[0, 0, 1, 1, 0, 0, 0, 0], [0] * 8]


def test_a_row_without_steps_has_no_tokens() -> None:
    found = token_layout(torch.zeros(1, 3), torch.tensor([[5, 5]]), torch.tensor([[0, 0]]), torch.tensor([0]))
    assert found.step_BL.tolist() == [[-1, -1, -1]]
    assert found.last_BT.tolist() == [[-1, -1]]


@pytest.mark.trap("wrong mask")
def test_trap_step_advantages_laid_on_the_wrong_mask() -> None:
    # A mask that marks an observation's token, or is shifted by one, is refused and not used.
    shifted = MASK.roll(1, dims=1)
    with pytest.raises(DataError, match="token 0 of row 0 was sampled but belongs to no step"):
        token_layout(shifted, STARTS, ENDS, LENGTHS)
    observed = MASK.clone()
    observed[0, 5] = 1
    with pytest.raises(DataError, match="token 5 of row 0 was sampled but belongs to no step"):
        token_layout(observed, STARTS, ENDS, LENGTHS)
    # Only sampled tokens get an advantage: a forced closing token gets none, nor does an observation.
    laid = spread_over_tokens(torch.ones(2, 2), layout())
    assert torch.equal(laid != 0, MASK == 1)


@pytest.mark.trap("masked reward")
def test_trap_the_terminal_reward_is_not_put_on_a_masked_token() -> None:
    # The last token of the episode is a closing token that was forced: the reward belongs before it.
    found = token_layout(
        torch.tensor([[0, 1, 1, 0]]), torch.tensor([[1]]), torch.tensor([[3]]), torch.tensor([1])
    )
    reward = put_on_last_tokens(torch.tensor([[1.0]]), found)
    assert reward.tolist() == [[0, 0, 1, 0]]
    assert (reward * found.sampled).sum() == 1


def test_a_step_nobody_sampled_a_token_of_is_refused() -> None:
    mask = MASK.clone()
    mask[0, 6:] = 0
    with pytest.raises(DataError, match="step 2 of row 0 has no token that the policy sampled"):
        token_layout(mask, STARTS, ENDS, LENGTHS)


@pytest.mark.parametrize(
    ("starts", "ends"), [([[2, 4], [1, 0]], [[4, 7], [1, 0]]), ([[2, 6], [1, 0]], [[4, 8], [1, 0]])]
)
def test_steps_that_overlap_or_leave_the_row_are_refused(
    starts: list[list[int]], ends: list[list[int]]
) -> None:
    with pytest.raises(ValueError, match=r"step 2 of row 0 runs from token \d to \d of 8"):
        token_layout(MASK, torch.tensor(starts), torch.tensor(ends), LENGTHS)
