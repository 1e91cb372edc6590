"""What a launch of the DeepSpeed tests runs in every process: ``-m tests.deepspeed.jobs JOB MODELS FOLDER``.

A launch takes many seconds, so one job looks at several things; the first process writes down what was seen.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import distributed
from transformers import TrainerCallback

from rlprm.errors import ArtifactError, TrainingError
from rlprm.models import sampled_tokens, zero
from rlprm.models.loading import load_causal_lm, load_scalar_model
from rlprm.models.lora import FULL_PRECISION, save_trained
from rlprm.prm.trainer import PRMTrainer
from rlprm.training import check_world_size, last_checkpoint
from tests.prm import toy

DATA, HELD_OUT = toy.separable(8, seed=5)[:27], toy.separable(3, seed=9, prefix="h")
EPOCHS, KILLED_AT = 2, 6
IDS = torch.arange(1, 41)[None]
TRAINING: dict[str, Any] = {
    "optim": "adamw_torch",
    "learning_rate": 2e-3,
    "max_grad_norm": 0.05,
    "num_train_epochs": EPOCHS,
    "save_strategy": "steps",
    "save_steps": 3,
    "logging_steps": 1,
}
"""27 trajectories are four updates an epoch, the last of them short; gradients are clipped in most."""
KINDS: dict[str, dict[str, Any]] = {
    "plain": TRAINING,
    "likelihood": {**TRAINING, "head": "lm"},
    "adapters": {**TRAINING, "learning_rate": 1e-2, "lora_r": 4, "gradient_checkpointing": True},
}
SPLIT = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
"""Two processes with two micro-batches of two: the update of eight that one process makes at once."""


class Notebook:
    """Numbers and tensors a job has seen; kept where all processes have theirs, written by the first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.numbers: dict[str, Any] = {}
        self.tensors: dict[str, torch.Tensor] = {}

    def of_every_process(self, name: str, value: Any) -> None:
        found: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(found, value)
        self.numbers[name] = found

    def write(self) -> None:
        if distributed.get_rank() == 0:
            save_file(
                {name: t.contiguous().clone() for name, t in self.tensors.items()},
                self.folder / "seen.safetensors",
            )
            (self.folder / "seen.json").write_text(json.dumps(self.numbers))
        distributed.barrier()


def losses(trainer: PRMTrainer) -> list[float]:
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def train(kind: str, build: toy.Build, models: Path, seen: Notebook, **changes: Any) -> PRMTrainer:
    """Train without a break, look at everything, save; then again with a break."""
    settings = {**KINDS[kind], **SPLIT, **changes}
    trainer = build(DATA, HELD_OUT, head_seed=None, folder=f"{kind}-whole", **settings)
    seen.of_every_process(f"{kind} miscounted", miscounted(trainer))
    seen.of_every_process(f"{kind} held before", held(trainer.model))
    trainer.train()
    seen.numbers[f"{kind} losses"] = losses(trainer)
    for name, weight in zero.full_weights(trainer.model).items():
        seen.tensors[f"{kind} weights {name}"] = weight
    seen.tensors[f"{kind} values"] = trainer.predict_logits(DATA[:5])
    seen.of_every_process(f"{kind} metrics", trainer.evaluate())
    seen.of_every_process(f"{kind} held", held(trainer.model))
    seen.of_every_process(f"{kind} sizes", sum(map(zero.size_of, trainer.model.parameters())))
    seen.of_every_process(
        f"{kind} trained", sum(zero.size_of(p) for p in trainer.model.parameters() if p.requires_grad)
    )
    seen.of_every_process(f"{kind} optimizer", optimizer_numbers(trainer))
    save_trained(
        trainer,
        str(seen.folder / f"{kind}-saved"),
        lambda: load_scalar_model(str(models / "prm"), **FULL_PRECISION),
    )
    resumed = resume(kind, build, settings)
    for name, weight in zero.full_weights(resumed.model).items():
        seen.tensors[f"{kind} resumed {name}"] = weight
    return resumed


def resume(kind: str, build: toy.Build, settings: dict[str, Any]) -> PRMTrainer:
    """Kill a run and go on from its last checkpoint."""
    killed = build(DATA, HELD_OUT, head_seed=None, folder=f"{kind}-killed", **settings)
    killed.add_callback(KillAt(KILLED_AT))
    record = {"kind": kind}
    assert last_checkpoint(killed.args.output_dir, record) is None
    try:
        killed.train()
    except KeyboardInterrupt:
        del killed
    distributed.barrier()
    resumed = build(DATA, HELD_OUT, head_seed=None, folder=f"{kind}-killed", **settings)
    checkpoint = last_checkpoint(resumed.args.output_dir, record)
    assert checkpoint is not None
    assert checkpoint.endswith(f"-{KILLED_AT}")
    resumed.train(resume_from_checkpoint=checkpoint)
    return resumed


def held(model: torch.nn.Module) -> int:
    """How many numbers of the weights this process holds."""
    return sum(getattr(p, "ds_tensor", p).numel() for p in model.parameters())


def optimizer_numbers(trainer: PRMTrainer) -> int:
    """How many numbers of Adam's first moments this process holds."""
    state = trainer.model_wrapped.optimizer.optimizer.state
    return sum(entry["exp_avg"].numel() for entry in state.values())


class KillAt(TrainerCallback):  # type: ignore[misc]
    """Stops a run dead after a step, once its checkpoint is written."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: object, state: Any, control: object, **_: object) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


def beside(models: Path, seen: Notebook) -> None:
    """Load and read other models while one is trained under ZeRO-3."""
    fresh = load_scalar_model(str(models / "policy"))
    seen.of_every_process("fresh held", held(fresh))
    with zero.with_full_weights(fresh.score.parameters()):
        seen.of_every_process("fresh head", [p.abs().sum().item() for p in fresh.score.parameters()])
    refused = []
    for load, name in ((load_causal_lm, "prm"), (load_scalar_model, "three_labels")):
        try:
            load(str(models / name))
        except ArtifactError as error:
            refused.append(str(error))
    seen.of_every_process("refused", refused)
    own: list[Any] = []
    if distributed.get_rank() == 1:  # alone, without the others
        with zero.loading_unsharded():
            whole = load_causal_lm(str(models / "policy"))
        assert not any(map(zero.is_split, whole.parameters()))
        own = whole(input_ids=IDS).logits.tolist()
    seen.of_every_process("whole logits", own)


def miscounted(trainer: PRMTrainer) -> str:
    """What is said where the launcher started more processes than the trainer knows of."""
    check_world_size(trainer.args)
    before = os.environ["WORLD_SIZE"]
    os.environ["WORLD_SIZE"] = "4"
    try:
        check_world_size(trainer.args)
    except TrainingError as error:
        return str(error)
    finally:
        os.environ["WORLD_SIZE"] = before
    return "nothing"


def joined(models: Path, seen: Notebook) -> None:
    """What an accelerator is like that no Trainer has made."""
    found = zero.start_accelerator(on_cpu=True, mixed_precision="no", timeout=timedelta(minutes=5))
    plugin = found.state.deepspeed_plugin
    seen.of_every_process(
        "joined",
        [
            found.num_processes,
            found.device.type,
            found.distributed_type.value,
            plugin.zero_stage,
            zero.zero_stage(),
        ],
    )
    # Models are loaded as they are to be trained, though no training arguments have been read yet.
    seen.of_every_process("joined held", held(load_scalar_model(str(models / "prm"))))


def plain(models: Path, seen: Notebook) -> None:
    joined(models, seen)
    train("plain", toy.builder(models / "prm", seen.folder), models, seen)


def split(models: Path, seen: Notebook) -> None:
    joined(models, seen)
    build = toy.builder(models / "prm", seen.folder)
    train("plain", build, models, seen)
    beside(models, seen)
    # Processes have different numbers of sampled tokens: read in parts, they would wait for one another.
    sampled_tokens._TOKENS_AT_ONCE = 7
    for kind in ("likelihood", "adapters"):
        train(kind, build, models, seen)


def coarse(models: Path, seen: Notebook) -> None:
    """As on a GPU: DeepSpeed computes in bfloat16 and keeps float32 weights beside."""
    trainer = toy.builder(models / "prm", seen.folder)(
        DATA,
        HELD_OUT,
        head_seed=None,
        folder="coarse",
        bf16=True,
        **{**TRAINING, **SPLIT, "save_strategy": "no"},
    )
    trainer.train()
    seen.numbers["losses"] = losses(trainer)
    seen.numbers["dtypes"] = sorted({str(p.dtype) for p in trainer.model.parameters()})
    seen.tensors["values"] = trainer.predict_logits(DATA)
    save_trained(
        trainer, str(seen.folder / "saved"), lambda: load_scalar_model(str(models / "prm"), **FULL_PRECISION)
    )


def dying(models: Path, seen: Notebook) -> None:
    """The second process fails while the first waits for its gradients."""
    trainer = toy.builder(models / "prm", seen.folder)(
        DATA, HELD_OUT, head_seed=None, folder="dying", **TRAINING, **SPLIT
    )
    if distributed.get_rank() == 1:
        trainer.add_callback(Fail(2))
    trainer.train()


class Fail(KillAt):
    """Fails at a step."""

    def on_step_begin(self, args: object, state: Any, control: object, **_: object) -> None:
        if state.global_step == self.step:
            raise RuntimeError("the second process has had enough")


JOBS: dict[str, Callable[[Path, Notebook], None]] = {
    "plain": plain,
    "split": split,
    "coarse": coarse,
    "dying": dying,
}

if __name__ == "__main__":
    seen = Notebook(Path(sys.argv[3]))
    JOBS[sys.argv[1]](Path(sys.argv[2]), seen)
    seen.write()
    distributed.destroy_process_group()
