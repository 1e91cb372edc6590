"""Deviations from a group's mean."""

from __future__ import annotations

import pytest
import torch

from rlprm.functional.groups import group_deviations


def test_deviations_by_hand_and_in_any_order() -> None:
    # group 7: 1, 0, 0.5 -> mean .5, deviations .5, -.5, 0, std sqrt(.5/3); group 2: 3, 5 -> -1, 1, std 1
    found = group_deviations(
        torch.tensor([1.0, 3.0, 0.0, 5.0, 0.5]),
        torch.tensor([7, 2, 7, 2, 7]),
        torch.ones(5, dtype=torch.bool),
    )
    torch.testing.assert_close(found.deviation_B, torch.tensor([0.5, -1.0, -0.5, 1.0, 0.0]))
    spread = (0.5 / 3) ** 0.5
    torch.testing.assert_close(found.std_B, torch.tensor([spread, 1.0, spread, 1.0, spread]))
    assert found.size_B.tolist() == [3, 2, 3, 2, 3]


@pytest.mark.parametrize("value", [0.1, 1e6 + 0.1, -0.3])
def test_equal_numbers_deviate_by_exactly_nothing(value: float) -> None:
    counts = torch.tensor([True] * 7 + [False])
    found = group_deviations(torch.full((8,), value), torch.zeros(8, dtype=torch.long), counts)
    assert found.deviation_B.eq(0).all()
    assert found.std_B.eq(0).all()


def test_rows_that_do_not_count_are_in_no_group() -> None:
    found = group_deviations(
        torch.tensor([1.0, float("nan"), 3.0, 4.0]),
        torch.tensor([0, 0, 0, 1]),
        torch.tensor([True, False, True, True]),
    )
    assert found.deviation_B.tolist() == [-1, 0, 1, 0]
    assert found.size_B.tolist() == [2, 0, 2, 1]


def test_group_numbers_are_integers() -> None:
    with pytest.raises(ValueError, match=r"groups_B has dtype torch\.float32"):
        group_deviations(torch.zeros(1), torch.zeros(1), torch.ones(1, dtype=torch.bool))
