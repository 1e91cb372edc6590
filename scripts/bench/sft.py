"""Seconds of a fine-tuning update with logits at learned tokens only, and with TRL's own trainer, in one run.

rlprm models get smollm2-135m
python scripts/bench/sft.py --model models/smollm2-135m --bf16
"""

from __future__ import annotations

import argparse
import tempfile
import time
from typing import Any

import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from rlprm.models.loading import load_causal_lm, load_tokenizer
from rlprm.sft.trainer import IGNORED, LearnedTokensTrainer


def seconds(kind: type[SFTTrainer], options: argparse.Namespace) -> list[float]:
    """Return the seconds of each update; the first one is a warm-up."""
    found: list[float] = []

    class Timed(kind):  # type: ignore[misc, valid-type]
        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            loss = super().training_step(*args, **kwargs)
            found.append(time.perf_counter() - started)
            return loss

    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(10, 1000, (options.rows, options.length), generator=generator).tolist()
    labels = [[token if at % options.every == 0 else IGNORED for at, token in enumerate(row)] for row in ids]
    with tempfile.TemporaryDirectory() as folder:
        arguments = SFTConfig(
            output_dir=folder, use_cpu=not torch.cuda.is_available(), bf16=options.bf16, report_to="none",
            max_steps=options.updates + 1, per_device_train_batch_size=options.rows, save_strategy="no",
            dataset_kwargs={"skip_prepare_dataset": True}, logging_steps=1000, disable_tqdm=True,
            gradient_checkpointing=False, dataloader_pin_memory=False,
        )  # fmt: skip
        trainer = Timed(
            model=load_causal_lm(options.model, dtype="float32"),
            args=arguments,
            train_dataset=Dataset.from_dict({"input_ids": ids, "labels": labels}),
            processing_class=load_tokenizer(options.model),
        )
        trainer.train()
    return found[1:]


def main() -> None:
    """Print tokens a second of both, and the ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="folder or hub id")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--length", type=int, default=460, help="tokens of a row")
    parser.add_argument("--every", type=int, default=7, help="one token in so many is learned")
    parser.add_argument("--updates", type=int, default=2)
    parser.add_argument("--bf16", action="store_true")
    options = parser.parse_args()
    best = {kind: min(seconds(kind, options)) for kind in (LearnedTokensTrainer, SFTTrainer)}
    for kind, time_of in best.items():
        rate = options.rows * options.length / time_of
        print(f"{kind.__name__}: {time_of:.2f} s an update, {rate:.0f} tokens a second")
    print(f"ratio: {best[SFTTrainer] / best[LearnedTokensTrainer]:.2f}")


if __name__ == "__main__":
    main()
