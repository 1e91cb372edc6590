"""Run by a launcher in every process: the training of ``test_two_processes_equal_one``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from safetensors.torch import save_file

from tests.prm import toy

if __name__ == "__main__":
    weights, output, count, kind = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    data = toy.separable(8, seed=5)[:count]
    stored = toy.stored_labels(data) if kind == "stored labels" else None
    settings = {"num_train_epochs": 2, "per_device_train_batch_size": 4, **toy.PROCESS_KINDS[kind]}
    build = toy.builder(weights, output)
    trainer = build(data, folder="b", stored=stored, **settings)
    assert trainer.accelerator.num_processes == 2
    trainer.train()
    if kind == "resumed":  # in the middle of the second epoch
        trainer = build(data, folder="c", **settings)
        trainer.train(resume_from_checkpoint=str(output / "b" / "checkpoint-6"))
    values = trainer.predict_logits(data[:5])
    if trainer.is_world_process_zero():
        save_file({"weights": toy.weights(trainer), "values": values}, output / "two.safetensors")
        (output / "world.json").write_text(json.dumps(trainer.accelerator.num_processes))
    # A process that leaves ends the others; all stay until the results are written.
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()
