"""Adapters act merged in a copy: with the probabilities of the trainer, after each update."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from rlprm.data.rendering import ChatRenderer
from rlprm.models.loading import load_causal_lm
from rlprm.policies.decoding.rounding import MEAN_OF_HALF
from rlprm.policies.merged import can_be_merged, merge_into, merged_copy
from rlprm.rl.batch import Batch
from rlprm.rl.monitor.mismatch import sampler_mismatch
from rlprm.rl.samplers.local import LocalSampler
from rlprm.types import EpisodeSetting, Trajectory
from tests.architectures.tiny import tiny_model
from tests.rl import toy

SETTING = EpisodeSetting(round_limit=6)
CPU = torch.device("cpu")


def logprobs(model: nn.Module, ids_BL: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.log_softmax(model(input_ids=ids_BL, use_cache=False).logits.float(), -1)


def learned(weights: Path, **settings: Any) -> toy.Learner:
    """A learner whose adapters have taken a step."""
    learner = toy.learner(weights, lora_r=4, learning_rate=0.02, max_new_tokens=5, **settings)
    return step(learner)


def step(learner: toy.Learner) -> toy.Learner:
    batch = toy.batch(8)
    learner.update(batch, toy.random_credit(batch), learner.read_old(batch))
    return learner


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-5), ("bfloat16", MEAN_OF_HALF)])
def test_merged_and_unmerged_give_the_same_probabilities_within_rounding(
    tiny_folder: Path, dtype: str, bound: float
) -> None:
    policy: Any = learned(tiny_folder).engine.model.policy.eval()
    copy = merged_copy(policy, lambda: load_causal_lm(str(tiny_folder), dtype=dtype, device=CPU))
    assert copy.dtype == getattr(torch, dtype)
    ids_BL = toy.batch(8).token_ids_BL
    unmerged = logprobs(policy, ids_BL)
    assert float((logprobs(copy, ids_BL) - unmerged).abs().mean()) < bound
    with policy.disable_adapter():
        assert float((logprobs(policy, ids_BL) - unmerged).abs().mean()) > 4 * bound


def test_autocast_rounds_no_adapter(tiny_folder: Path) -> None:
    policy: Any = learned(tiny_folder).engine.model.policy
    copy = merged_copy(policy, lambda: load_causal_lm(str(tiny_folder), dtype="float32", device=CPU))
    before = {name: p.clone() for name, p in copy.named_parameters()}
    with torch.autocast("cpu", torch.bfloat16):
        merge_into(copy, policy)
    assert all(torch.equal(before[name], p) for name, p in copy.named_parameters())


def test_transposed_layers_are_merged() -> None:
    """GPT-2 keeps its weights the other way round."""
    policy: Any = get_peft_model(tiny_model("gpt2", 300), LoraConfig(task_type="CAUSAL_LM", r=4))
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    copy = merged_copy(policy, lambda: tiny_model("gpt2", 300)).eval()
    ids_BL = torch.arange(3, 40).reshape(1, -1)
    torch.testing.assert_close(logprobs(copy, ids_BL), logprobs(policy.eval(), ids_BL), atol=1e-5, rtol=0)


def test_the_sampler_follows_every_update(tiny_folder: Path, renderer: ChatRenderer) -> None:
    learner = learned(tiny_folder)
    sampler = LocalSampler(learner.config, renderer, learner.engine.processes)
    seen = []
    for version in range(3):
        sampler.sync(learner.engine, version=version)
        assert not any("lora" in name for name, _ in sampler.policy.model.named_modules())  # type: ignore[attr-defined]
        episodes = collect(sampler)
        batch = Batch.from_trajectories(episodes)
        assert sampler_mismatch(batch, learner.read_old(batch)) < 1e-5
        step(learner)
        assert sampler_mismatch(batch, learner.read_old(batch)) > 1e-3  # the weights have moved away
        seen.append([t.token_ids for t in episodes])
    assert seen[0] != seen[1] != seen[2]


def test_what_cannot_be_merged_acts_through_its_adapters_and_says_so_once(
    tiny_folder: Path, renderer: ChatRenderer, caplog: pytest.LogCaptureFixture
) -> None:
    learner = learned(tiny_folder, lora_target_modules=["embed_tokens"])
    policy: Any = learner.engine.model.policy
    assert policy.config.tie_word_embeddings, "the case needs a tied output layer"
    assert not can_be_merged(policy)
    sampler = LocalSampler(learner.config, renderer, learner.engine.processes)
    with caplog.at_level(logging.WARNING):
        for version in range(2):
            sampler.sync(learner.engine, version=version)
    assert [r.message for r in caplog.records if "acts through its adapters" in r.message] != []
    assert len([r for r in caplog.records if "acts through its adapters" in r.message]) == 1
    batch = Batch.from_trajectories(collect(sampler))
    assert sampler_mismatch(batch, learner.read_old(batch)) < 1e-5


def collect(sampler: LocalSampler) -> list[Trajectory]:
    return sampler.collect([(task, 0) for task in toy.tasks(6)], SETTING)
