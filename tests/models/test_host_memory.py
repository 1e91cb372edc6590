"""Tensors leave the memory of an accelerator and come back as the same objects with the same bytes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rlprm.models.host_memory import emptied, in_host_memory, tensors_of


def test_tied_weights_views_and_adam_come_back_and_learn_on() -> None:
    torch.manual_seed(0)
    one, two = (nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)) for _ in range(2))
    two.load_state_dict(one.state_dict())
    for model in (one, two):
        model[1].weight = model[0].weight
    optimisers = [torch.optim.Adam(model.parameters(), lr=0.1) for model in (one, two)]
    hooked: list[bool] = []
    two[0].weight.register_post_accumulate_grad_hook(lambda _: hooked.append(True))
    view = two[0].weight.data[1:]
    for number in range(3):
        if number == 1:
            states = [x for state in optimisers[1].state.values() for x in state.values()]
            with emptied([*tensors_of(two), *states]):
                assert two[0].weight.untyped_storage().nbytes() == 0
                assert states[1].untyped_storage().nbytes() == 0
        for model, optimiser in zip((one, two), optimisers, strict=True):
            model(torch.ones(2, 3)).square().sum().backward()
            optimiser.step()
            optimiser.zero_grad()
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
    assert two[1].weight is two[0].weight
    assert torch.equal(view, two[0].weight[1:])
    assert len(hooked) == 3  # DDP averages gradients by such hooks


def test_an_error_within_the_block_brings_the_weights_back_too() -> None:
    weight = torch.arange(4.0)
    with pytest.raises(ValueError, match="within"), emptied([weight]):
        raise ValueError("within")
    assert weight.tolist() == [0, 1, 2, 3]


def test_tensors_on_the_cpu_stay() -> None:
    weight = torch.arange(4.0)
    with in_host_memory([weight]):
        assert weight.tolist() == [0, 1, 2, 3]
