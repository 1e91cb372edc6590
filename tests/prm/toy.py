"""Trajectories that a small PRM can tell apart, and trainers of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlprm.data.store import TrajectoryStore
from rlprm.labels.base import from_step_labels
from rlprm.models.lora import with_adapters
from rlprm.prm.config import PRMConfig
from rlprm.prm.stored import StoredLabels
from rlprm.prm.trainer import PRMTrainer, prm_arguments
from rlprm.runtime.settings import declarations
from rlprm.stages.train_prm import load_base
from rlprm.types import StepLabels, Trajectory
from tests.toys.trajectories import of_words

Build = Callable[..., PRMTrainer]

META = {
    "environment": "tests.toys.corridor",
    "env_kwargs": {"length": 4},
    "round_limit": 6,
    "prompt": "none",
    "action_format": "action_only",
}
"""Of a folder of such trajectories."""

PROCESS_KINDS: dict[str, dict[str, Any]] = {
    "plain": {"learning_rate": 2e-3},
    "stored labels": {"learning_rate": 2e-3},
    "likelihood": {"learning_rate": 2e-3, "head": "lm"},
    "adapters": {"learning_rate": 2e-2, "lora_r": 4, "gradient_checkpointing": True},
    "resumed": {"learning_rate": 2e-3, "save_strategy": "steps", "save_steps": 6},
}
"""Settings of the runs that two processes repeat; four updates an epoch."""


def separable(tasks: int, samples: int = 4, *, seed: int = 0, prefix: str = "t") -> list[Trajectory]:
    """Successful exactly where the first action is ``right``; 1 to 7 steps, whatever the outcome."""
    rng = np.random.default_rng(seed)
    episodes = []
    for task in range(tasks):
        for sample in range(samples):
            success = bool(rng.random() < 0.5)
            rest = rng.choice(["left", "right", "wait"], size=int(rng.integers(0, 7))).tolist()
            first = "right" if success else "left"
            episodes.append(of_words([first, *rest], success, task=f"{prefix}{task}", sample=sample))
    return episodes


def config(output: Path, **settings: Any) -> PRMConfig:
    """Settings that change nothing unasked: plain SGD, constant rate, no clipping."""
    defaults: dict[str, Any] = {
        "trajectories": "-",
        "model": "-",
        "output_dir": str(output),
        "optim": "sgd",
        "learning_rate": 2e-3,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "num_train_epochs": 1,
        "per_device_train_batch_size": 8,
        "eval_strategy": "no",
        "disable_tqdm": True,
        "bf16": False,
        "seed": 3,
    }
    given = {**defaults, **settings}
    others = {name: given.pop(name) for name in list(given) if name not in declarations(PRMConfig)}
    return PRMConfig(**given, trainer_kwargs=others)


def builder(weights: Path, output: Path) -> Build:
    """Return a function that makes trainers from the same initial weights."""

    def build(
        train: Sequence[Trajectory],
        held_out: Sequence[Trajectory] | None = None,
        *,
        head_seed: int | None = 0,
        folder: str = "prm",
        stored: StoredLabels | None = None,
        **settings: Any,
    ) -> PRMTrainer:
        """Make a trainer; its head is random unless ``head_seed`` is None, so that values differ at once."""
        args = config(output / folder, model=str(weights), **settings)
        arguments = prm_arguments(args)  # before the model: how models are loaded depends on them
        model = load_base(args, dtype="float32")
        if head_seed is not None:
            head = model.score.weight
            noise = torch.randn(head.shape, generator=torch.Generator().manual_seed(head_seed))
            head.data.copy_(0.05 * noise)
        model = with_adapters(model, args, seed=args.seed)
        return PRMTrainer(model, args, train, held_out or train, stored=stored, arguments=arguments)

    return build


def stored_labels(trajectories: Sequence[Trajectory], *, seed: int = 0) -> StoredLabels:
    """Labels that no estimator makes: other targets and weights for every read and step."""
    rng = np.random.default_rng(seed)
    rows = []
    for t in trajectories:
        promise, progress, weight = (rng.random(len(t.steps) + n).tolist() for n in (1, 0, 1))
        rows.append(StepLabels(tuple(promise), tuple(progress), tuple(weight)))
    batch = from_step_labels(rows)
    return StoredLabels(batch, batch)


def weights(trainer: PRMTrainer) -> Tensor:
    """All parameters as one vector."""
    return torch.cat([p.detach().flatten().cpu() for p in trainer.model.parameters()])


def store(folder: Path, trajectories: Sequence[Trajectory]) -> str:
    """Write trajectories into a new folder; returns it."""
    TrajectoryStore.create(folder, META).write(0, trajectories)
    return str(folder)
