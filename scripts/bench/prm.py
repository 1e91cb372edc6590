"""Tokens a processor second of PRM training, with this package's trainer and with TRL's, in one run.

TRL 1.13 is the last version with a ``PRMTrainer``; install it beside the others:

pip install --no-deps --target runs/trl-1.13 trl==1.13.0
OMP_NUM_THREADS=1 PYTHONPATH=runs/trl-1.13:. python scripts/bench/prm.py --model runs/quickstart/policy
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence

import torch
from datasets import Dataset
from drawn import drawn
from transformers import AutoModelForTokenClassification, Trainer
from trl.experimental.prm import PRMConfig as TRLConfig
from trl.experimental.prm import PRMTrainer as TRLTrainer

from rlprm.data.store import TrajectoryStore
from rlprm.models.loading import load_scalar_model, load_tokenizer
from rlprm.prm.config import PRMConfig
from rlprm.prm.trainer import PRMTrainer
from rlprm.types import Trajectory

_IGNORED = -100


def ours(trajectories: Sequence[Trajectory], options: argparse.Namespace, folder: str) -> Trainer:
    """Return this package's trainer, on labels that need no values."""
    config = PRMConfig(
        trajectories="-", model=options.model, output_dir=folder, label_estimator="outcome",
        per_device_train_batch_size=options.rows, gradient_accumulation_steps=options.accumulated,
        num_train_epochs=1, eval_strategy="no", bf16=False, seed=0,
        trainer_kwargs={"save_strategy": "no", "disable_tqdm": True, "logging_strategy": "no"},
    )  # fmt: skip
    return PRMTrainer(
        load_scalar_model(options.model, dtype="float32"), config, trajectories, trajectories[:1]
    )


def trls(
    trajectories: Sequence[Trajectory], options: argparse.Namespace, folder: str, *, grouped: bool
) -> Trainer:
    """Return TRL's trainer on the same tokens, with a class at the last token of every action."""
    labels = []
    for trajectory in trajectories:
        row = [_IGNORED] * len(trajectory.token_ids)
        for step in trajectory.steps:
            row[step.end] = int(trajectory.outcome.success)
        labels.append(row)
    ids = [list(trajectory.token_ids) for trajectory in trajectories]
    config = TRLConfig(
        output_dir=folder, per_device_train_batch_size=options.rows, use_cpu=True, bf16=False,
        report_to="none",
        gradient_accumulation_steps=options.accumulated, num_train_epochs=1, save_strategy="no",
        logging_strategy="no", disable_tqdm=True, gradient_checkpointing=False, seed=0,
        train_sampling_strategy="group_by_length" if grouped else "random", dataloader_pin_memory=False,
    )  # fmt: skip
    return TRLTrainer(
        model=AutoModelForTokenClassification.from_pretrained(
            options.model, num_labels=2, dtype=torch.float32
        ),
        args=config,
        train_dataset=Dataset.from_dict({"input_ids": ids, "labels": labels}),
        processing_class=load_tokenizer(options.model),
    )


def main() -> None:
    """Print the tokens a processor second of each trainer, and the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="folder or hub id")
    parser.add_argument("--trajectories", default="", help="folder made by rlprm collect; drawn if empty")
    parser.add_argument("--count", type=int, default=256, help="trajectories")
    parser.add_argument("--most_tokens", type=int, default=1500, help="of a trajectory that is drawn")
    parser.add_argument("--rows", type=int, default=8, help="of a micro-batch")
    parser.add_argument("--accumulated", type=int, default=1, help="micro-batches of an update")
    parser.add_argument("--rounds", type=int, default=3, help="of all trainers, in turn")
    options = parser.parse_args()
    if options.trajectories:
        stored = TrajectoryStore.open(options.trajectories).read()
        trajectories = [trajectory for trajectory in stored if trajectory.steps][: options.count]
    else:
        trajectories = drawn(options.count, options.most_tokens, seed=0)
    makers: dict[str, Callable[[str], Trainer]] = {
        "rlprm": lambda folder: ours(trajectories, options, folder),
        "TRL": lambda folder: trls(trajectories, options, folder, grouped=False),
        "TRL, by length": lambda folder: trls(trajectories, options, folder, grouped=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in makers}
    for _ in range(options.rounds):
        for name, make in makers.items():
            with tempfile.TemporaryDirectory() as folder:
                trainer = make(folder)
                started = time.process_time()
                trainer.train()
                seconds[name].append(time.process_time() - started)
    tokens = sum(len(trajectory.token_ids) for trajectory in trajectories)
    print(f"{len(trajectories)} trajectories, {tokens} tokens, {options.rounds} rounds, least of each")
    for name, found in seconds.items():
        ratio = min(found) / min(seconds["rlprm"])
        rates = f"{tokens / min(found):.0f} tokens a processor second"
        print(
            f"{name}: {min(found):.2f} s (most {max(found):.2f}), {rates}, rlprm is {ratio:.2f} times as fast"
        )


if __name__ == "__main__":
    main()
