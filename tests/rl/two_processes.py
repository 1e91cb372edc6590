"""Runs that one process and two must bring to the same end; as a module, what a launcher runs in each.

``-m tests.rl.two_processes POLICY PRM FOLDER``
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import distributed

from rlprm.rl.config import RLConfig
from rlprm.rl.engine import accelerated
from rlprm.rl.trainer import RLTrainer
from rlprm.runtime.processes import is_first
from rlprm.stages import train_rl as stage
from rlprm.types import Trajectory
from tests.rl import walker
from tests.rl.conftest import descent

KINDS: dict[str, dict[str, Any]] = {
    "progress": {"eval_every": 2, "eval_tasks": 5, "test_tasks": 6, "test_samples": 1, "kl_coef": 0.05,
                 "entropy_coef": 0.01, "critic_warmup_iterations": 1, "repeat_probe": 4,
                 "select": "last"},
    "dense": {"reward": "outcome", "advantage": "outcome_plus_progress", "ppo_epochs": 2, "target_kl": 0.01},
    "adapters": {"lora_r": 4, "learning_rate": 0.1, "advantage": "token_gae",
                 "gradient_checkpointing": True},
    "few episodes": {"tasks_per_iteration": 1, "samples_per_task": 3, "minibatches": 2, "ppo_epochs": 2,
                     "reward": "outcome", "advantage": "leave_one_out", "prm": ""},
    "killed": {"save_every": 1, "critic": "shared"},
    "refreshed": {"refresh_every": 2, "save_every": 2,
                  "refresh_kwargs": {"learning_rate": 1e-3, "optim": "sgd", "disable_tqdm": True}},
}  # fmt: skip
"""Of a minibatch of one episode, the second process has nothing."""
COMMON = {
    "iterations": 3, "learning_rate": 0.02, "critic_learning_rate_factor": 1.0, "wave_size": 5,
    "micro_batch_tokens": 400, "max_grad_norm": 0.5,
}  # fmt: skip


def run_all(policy: Path, prm: Path, folder: Path) -> dict[str, list[list[tuple[int, ...]]]]:
    """Run every kind; returns the token ids of each iteration's episodes."""
    kept = accelerated.AdamW, RLTrainer.collect, RLTrainer._iterate
    _, collect, iterate = kept
    episodes: dict[str, list[list[tuple[int, ...]]]] = {}

    def watched(self: RLTrainer, iteration: int, **options: Any) -> list[Trajectory]:
        found = collect(self, iteration, **options)
        episodes.setdefault(self.folder.name, []).append([t.token_ids for t in found])
        return found

    def killed(self: RLTrainer, iteration: int) -> Any:
        if iteration == 2:
            raise KeyboardInterrupt
        return iterate(self, iteration)

    accelerated.AdamW, RLTrainer.collect = descent, watched  # type: ignore[assignment, method-assign, misc]
    try:
        for kind, changes in KINDS.items():
            settings = {**walker.settings(policy, prm), **COMMON, **changes}
            config = RLConfig(**{**settings, "output_dir": str(folder / kind)})
            if kind == "killed":
                RLTrainer._iterate = killed  # type: ignore[method-assign]
                with suppress(KeyboardInterrupt):
                    stage.run(config)
                RLTrainer._iterate = iterate  # type: ignore[method-assign]
                assert len(episodes[kind]) == 2
            stage.run(config)
    finally:
        accelerated.AdamW, RLTrainer.collect, RLTrainer._iterate = kept  # type: ignore[method-assign, misc]
    return episodes


if __name__ == "__main__":
    target = Path(sys.argv[3])
    seen = run_all(Path(sys.argv[1]), Path(sys.argv[2]), target)
    assert distributed.get_world_size() == 2
    everyone: list[Any] = [None, None]
    distributed.all_gather_object(everyone, seen)
    assert everyone[0] == everyone[1], "the processes saw different episodes"
    if is_first():
        (target / "episodes.json").write_text(json.dumps(seen))
    # A process that leaves ends the others; all stay until the results are written.
    distributed.barrier()
    distributed.destroy_process_group()
    os._exit(0)  # gloo's threads may abort a process while its interpreter ends
