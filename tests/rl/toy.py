"""Batches a reader can work out, and learners on a very small model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlprm.models.loading import head_of
from rlprm.rl.actor_critic import ActorCritic
from rlprm.rl.batch import Batch
from rlprm.rl.config import RLConfig
from rlprm.rl.credit import Credit, OldLogprobs
from rlprm.rl.engine import start_accelerator
from rlprm.rl.learner import Learner
from rlprm.rl.loading import load_model
from rlprm.rl.rewards import StepRewards
from tests.prm.toy import separable


def config(**settings: Any) -> RLConfig:
    """Settings that change nothing unasked: no warm-up, no clipping of gradients, one step an update."""
    defaults: dict[str, Any] = {
        "environment": "tests.toys.corridor",
        "model": "-",
        "reward": "outcome",
        "max_grad_norm": 0.0,
        "critic_warmup_iterations": 0,
        "minibatches": 1,
        "max_new_tokens": 8,
        "bf16": False,
        "dtype": "float32",
        "seed": 3,
    }
    return RLConfig(**{**defaults, **settings})


def actor_critic(weights: Path, *, head_seed: int = 0, **settings: Any) -> ActorCritic:
    """The model of a run; the critic's head is random, so that values differ at once."""
    model = load_model(config(model=str(weights), **settings), on=torch.device("cpu"), bf16=False)
    heads = [model.value_head] if model.value_head is not None else []
    if model.critic is not None:
        heads += [model.critic.get_submodule(name) for name in head_of(model.critic)]
    generator = torch.Generator().manual_seed(head_seed)
    for head in heads:
        assert isinstance(head, nn.Module)
        for parameter in head.parameters():
            parameter.data.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def learner(weights: Path, **settings: Any) -> Learner:
    """A learner of that model."""
    model = actor_critic(weights, **settings)
    return Learner(model, config(model=str(weights), **settings), start_accelerator(bf16=False))


def batch(count: int = 12, *, seed: int = 5) -> Batch:
    """Real token ids: episodes of 1 to 7 steps in disorder."""
    return Batch.from_trajectories(separable(-(-count // 4), seed=seed)[:count])


def random_credit(of: Batch, *, seed: int = 0, level: str = "token") -> Credit:
    """Advantages and targets that no estimator makes: other ones for every sampled token."""
    generator = torch.Generator().manual_seed(seed)
    sampled = of.layout.sampled
    advantages_BL, returns_BL = (
        torch.randn(sampled.shape, generator=generator).where(sampled, 0.0) for _ in range(2)
    )
    nothing_BT = torch.zeros(of.starts_BT.shape)
    learned = sampled if level == "token" else torch.zeros_like(sampled)
    return Credit(
        advantages_BL, returns_BL, learned, StepRewards(nothing_BT, nothing_BT), nothing_BT, raw_std=1.0
    )


def update(of: Learner, given: Batch, credit: Credit, evaluated: OldLogprobs, **settings: Any) -> Any:
    """One update, in the order of a fixed seed."""
    return of.update(given, credit, evaluated, **{"seed": 0, "factor": 1.0, "critic_only": False, **settings})


def weights(of: Learner | nn.Module, part: str = "") -> Tensor:
    """All parameters, or those of a part, as one vector."""
    module = of.whole if isinstance(of, Learner) else of
    chosen = [p for name, p in module.named_parameters() if name.startswith(part)]
    return torch.cat([p.detach().flatten().clone() for p in chosen])


def plain_logits(model: nn.Module, batch: Batch) -> Tensor:
    """(N, V): of each row alone, without padding, in one forward, shifted by hand."""
    found = []
    for row, width in enumerate(batch.widths_B):
        logits_LV = model(input_ids=batch.token_ids_BL[row : row + 1, :width], use_cache=False).logits[0]
        found.append(logits_LV[:-1][batch.layout.sampled[row, 1:width]])
    return torch.cat(found)


def sampled_ids(batch: Batch) -> Tensor:
    """(N,): the tokens the policy chose."""
    return batch.token_ids_BL[batch.layout.sampled]
