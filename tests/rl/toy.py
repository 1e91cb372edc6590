"""Batches a reader can work out, and engines on a very small model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlprm import envs
from rlprm.models.loading import head_of
from rlprm.rl.actor_critic import ActorCritic
from rlprm.rl.batch import Batch
from rlprm.rl.config import RLConfig
from rlprm.rl.credit import Credit, OldLogprobs
from rlprm.rl.engine import make_engine, start_accelerator
from rlprm.rl.engine.accelerated import AccelerateEngine
from rlprm.rl.loading import load_model
from rlprm.rl.old_logprobs import read_old_logprobs
from rlprm.rl.rewards import StepRewards
from rlprm.rl.samplers.base import run_distributed
from rlprm.rl.update import UpdateStats, update
from rlprm.runtime.processes import SINGLE_PROCESS, Processes
from rlprm.types import EpisodeSetting, Split, Task, Trajectory
from tests.prm.toy import separable
from tests.toys.agents import SeededPolicy


def config(**settings: Any) -> RLConfig:
    """Settings that change nothing unasked: no warm-up, no clipping of gradients, one step an update."""
    defaults: dict[str, Any] = {
        "environment": "tests.toys.corridor",
        "model": "-",
        "reward": "outcome",
        "advantage": "turn_gae",
        "max_grad_norm": 0.0,
        "critic_warmup_iterations": 0,
        "minibatches": 1,
        "max_new_tokens": 8,
        "bf16": False,
        "dtype": "float32",
        "seed": 3,
    }
    return RLConfig(**{**defaults, **settings}).settled(parameters=400_000)


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


@dataclass(frozen=True)
class Learner:
    """An engine with the settings of its run."""

    engine: AccelerateEngine
    config: RLConfig

    def read_old(self, batch: Batch) -> OldLogprobs:
        """Read the policy before an update, as a run does."""
        return read_old_logprobs(
            self.engine, batch,
            token_budget=self.config.micro_batch_tokens, with_reference=self.config.kl_coef > 0,
        )  # fmt: skip

    def update(self, batch: Batch, credit: Credit, old: OldLogprobs, **settings: Any) -> UpdateStats:
        """Take one update, in the order of a fixed seed unless another is given."""
        chosen = {"seed": 0, "factor": 1.0, "critic_only": False, **settings}
        return update(self.engine, batch, credit, old, self.config, **chosen)


def learner(weights: Path, **settings: Any) -> Learner:
    """An engine of that model."""
    chosen = config(model=str(weights), **settings)
    engine = make_engine(actor_critic(weights, **settings), chosen, start_accelerator(bf16=False))
    assert isinstance(engine, AccelerateEngine)
    return Learner(engine, chosen)


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


def weights(of: Learner, part: str = "") -> Tensor:
    """All parameters, or those of a part, as one vector."""
    module = of.engine.model
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


class PolicySampler:
    """A sampler that acts with a policy of its own: nothing to sync."""

    def __init__(
        self,
        policy: Any,
        *,
        wave_size: int = 4,
        seed: int = 7,
        processes: Processes = SINGLE_PROCESS,
    ) -> None:
        self.policy, self.wave_size, self.seed, self.processes = policy, wave_size, seed, processes

    @property
    def in_half(self) -> bool:
        """See :class:`rlprm.rl.samplers.base.Sampler`."""
        return False

    @property
    def is_exact(self) -> bool:
        """See :class:`rlprm.rl.samplers.base.Sampler`."""
        return False

    def offloaded(self) -> AbstractContextManager[None]:
        """See :class:`rlprm.rl.samplers.base.Sampler`."""
        return nullcontext()

    def sync(self, engine: object, *, version: int) -> None:
        """Do nothing."""

    @contextmanager
    def acting_as(self, model: str) -> Iterator[None]:
        """Act on with the same policy."""
        yield

    def collect(
        self, jobs: Sequence[tuple[Task, int]], setting: EpisodeSetting, *, greedy: bool = False
    ) -> list[Trajectory]:
        """See :class:`rlprm.rl.samplers.base.Sampler`."""
        policy = self.policy.at_temperature(0.0) if greedy else self.policy
        return run_distributed(
            jobs, policy, setting, wave_size=self.wave_size, seed=self.seed, processes=self.processes
        )


class Walker(SeededPolicy):
    """Goes right or finishes, by chance; at temperature 0 it goes right."""

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__(("right", "finish"), temperature)
        self.forgotten = 0

    def at_temperature(self, temperature: float) -> Walker:
        return Walker(temperature)

    def clear(self) -> None:
        self.forgotten += 1


def tasks(count: int = 5) -> list[Task]:
    """Tasks of the corridor for a :class:`Walker`."""
    found: list[Task] = envs.load("tests.toys.corridor").tasks(Split.TEST, 0, count, length=4)
    return found
