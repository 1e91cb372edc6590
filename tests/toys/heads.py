"""Reward models of a tiny policy, with heads that say something before any training."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedModel

from rlprm.models.heads import SCALAR
from rlprm.models.loading import head_of, load_lm_reward_model, load_scalar_model


def with_random_head(folder: Path, head: str) -> PreTrainedModel:
    """Load a model with a head drawn from a fixed seed."""
    path, generator = str(folder), torch.Generator().manual_seed(0)
    model: PreTrainedModel = (
        load_scalar_model(path, dtype="float32")
        if head == SCALAR
        else load_lm_reward_model(path, scale=0.3, dtype="float32")
    )
    for name in head_of(model):
        torch.nn.init.normal_(model.get_submodule(name).weight, std=0.3, generator=generator)
    return model.eval()
