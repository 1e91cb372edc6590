"""A policy that walks the corridor, badly, and a PRM of its episodes, made within seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlprm import envs
from rlprm.data.batching import pad_right
from rlprm.data.conversation import Conversation
from rlprm.models.heads.reading import read_logits, stack_positions
from rlprm.models.heads.value_positions import chain_positions
from rlprm.models.loading import load_causal_lm, load_scalar_model, revision_of
from rlprm.models.manifest import Manifest
from rlprm.models.tiny import tiny_model
from rlprm.policies.base import Completion
from rlprm.policies.hf import HFPolicy
from rlprm.rl.actor_critic import ActorCritic
from rlprm.rl.batch import Batch
from rlprm.rollouts.waves import rollout
from rlprm.types import EpisodeSetting, Split, Trajectory
from tests.toys import agents, manifests

ENVIRONMENT = "tests.toys.corridor"
LENGTH = 4
SETTING = EpisodeSetting(round_limit=6)
MAX_NEW_TOKENS = 8
_CPU = torch.device("cpu")


class Distracted(agents.SeededPolicy):
    """Does what the expert does, or anything: with equal chances where it should finish, else rarely."""

    def act(self, conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[Completion]:
        found = []
        for conversation, seed in zip(conversations, seeds, strict=True):
            chance = np.random.default_rng(seed).random(2)
            goal = int(conversation.messages[-1 - 2 * len(conversation.steps)]["content"].split()[4][0])
            moves = [step.action for step in conversation.steps]
            cell = moves.count("right") - moves.count("left")
            right = "finish" if cell == goal else "right" if cell < goal else "left"
            distracted = chance[0] < (0.5 if right == "finish" else 0.2)
            drawn = self.actions[int(chance[1] * len(self.actions))] if distracted else right
            found.append(self._completion(drawn))
        return found


def walks(policy: agents.SeededPolicy | HFPolicy, tasks: int, samples: int, first: int) -> list[Trajectory]:
    chosen = envs.load(ENVIRONMENT).tasks(Split.TRAIN, first, tasks, length=LENGTH)
    return rollout([(task, sample) for task in chosen for sample in range(samples)], policy, SETTING)


def make_policy(folder: Path, *, steps: int = 100) -> None:
    """Train a model to say what the distracted expert says."""
    renderer = agents.renderer()
    seen = walks(Distracted(), 50, 4, first=5000)
    model = ActorCritic(tiny_model(renderer.tokenizer, size="xs", context_length=512))
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    order = np.random.default_rng(0).permutation(len(seen))
    for step in range(steps):
        batch = Batch.from_trajectories([seen[order[(8 * step + i) % len(order)]] for i in range(8)])
        rows_N, positions_N = batch.layout.sampled.nonzero(as_tuple=True)
        loss = -model(batch.token_ids_BL, rows_N, positions_N).logprobs.mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.policy.save_pretrained(folder)
    renderer.tokenizer.save_pretrained(folder)


def make_prm(folder: Path, policy: Path, *, steps: int = 60) -> None:
    """Train a model to tell the policy's successes from its failures, at every step."""
    renderer = agents.renderer()
    acting = HFPolicy(
        load_causal_lm(str(policy), dtype="float32", device=_CPU), renderer,
        revision=revision_of(str(policy)), max_new_tokens=MAX_NEW_TOKENS,
    )  # fmt: skip
    seen = walks(acting, 40, 4, first=6000)
    model = load_scalar_model(str(policy), dtype="float32", device=_CPU)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    order = np.random.default_rng(1).permutation(len(seen))
    for step in range(steps):
        rows = [seen[order[(16 * step + i) % len(order)]] for i in range(16)]
        positions = [chain_positions(t) for t in rows]
        exists_BP = pad_right([[1] * len(row) for row in positions], 0) == 1
        values_BP = read_logits(model, pad_right([t.token_ids for t in rows], 0), stack_positions(positions))
        outcomes_B1 = torch.tensor([[float(t.outcome.success)] for t in rows])
        loss = ((values_BP - outcomes_B1)[exists_BP] ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.save_pretrained(folder)
    renderer.tokenizer.save_pretrained(folder)
    manifest(policy).save(folder)


def manifest(policy: Path, **changes: object) -> Manifest:
    """What such a PRM says of itself."""
    fields: dict[str, object] = {
        "label_estimator": "returns", "label_estimator_kwargs": {}, "beta": 0.0, "cold_start_epochs": 0,
        "environment": ENVIRONMENT, "env_kwargs": {"length": LENGTH}, "round_limit": SETTING.round_limit,
        "template": agents.renderer().template_hash, "base": revision_of(str(policy)),
        "policy": revision_of(str(policy)), **changes,
    }  # fmt: skip
    return manifests.manifest(**fields)  # type: ignore[arg-type]


def settings(policy: Path, prm: Path) -> dict[str, Any]:
    """Settings of a small run that learns quickly and measures nothing beside."""
    return {
        "environment": ENVIRONMENT, "env_kwargs": {"length": LENGTH}, "round_limit": SETTING.round_limit,
        "reward": "progress", "advantage": "turn_gae",
        "model": str(policy), "prm": str(prm), "max_new_tokens": MAX_NEW_TOKENS, "iterations": 3,
        "tasks_per_iteration": 8, "samples_per_task": 4, "num_tasks": 1000, "learning_rate": 1e-3,
        "eval_every": 0, "test_tasks": 0, "save_every": 0, "repeat_probe": 0, "bf16": False,
    }  # fmt: skip
