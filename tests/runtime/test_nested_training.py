"""A trainer within a run leaves the run's Accelerator, precision and random numbers as they were."""

from __future__ import annotations

import os
import random

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState

from rlprm.training import nested_training


def test_what_accelerators_share_and_random_numbers_are_as_before() -> None:
    for state in (PartialState, AcceleratorState, GradientState):  # of tests that ran before
        state._shared_state.clear()
    outer = Accelerator(cpu=True, mixed_precision="bf16", gradient_accumulation_steps=3)
    try:
        draws = [[], []]  # type: list[list[float]]
        for drawn, nests in zip(draws, (False, True), strict=True):
            for seed in (random.seed, np.random.seed, torch.manual_seed):
                seed(7)
            if nests:
                with nested_training():
                    inner = Accelerator(cpu=True, mixed_precision="no", gradient_accumulation_steps=1)
                    inner.gradient_state._set_sync_gradients(False)
                    assert inner.mixed_precision == "no"
                    os.environ["ACCELERATE_OF_A_TEST"] = "1"
                    torch.manual_seed(1)
                    random.random(), np.random.random()
            drawn += [random.random(), float(np.random.random()), float(torch.rand(1))]
        assert draws[0] == draws[1]
        assert outer.mixed_precision == outer.state.mixed_precision == "bf16"
        assert outer.gradient_accumulation_steps == 3
        assert outer.sync_gradients
        assert "ACCELERATE_OF_A_TEST" not in os.environ
    finally:
        for state in (PartialState, AcceleratorState, GradientState):
            state._shared_state.clear()
