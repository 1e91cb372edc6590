"""Speed of acting and training on one GPU: tokens a second, model FLOPs utilisation, peak memory.

    bash scripts/bench/gpu.sh gpu.json              # installs, then this script
    python scripts/bench/gpu.py --output gpu.json   # with what is installed
    python scripts/bench/gpu.py --tiny              # a tiny model on the CPU: a dry run of everything

The model has Qwen2.5-3B's shape and random weights; it is made here, without a network. Each part runs in a
process of its own, so that its peak memory is its own and a part that fails leaves the others alone.

* ``decode``: episodes of a constant environment, every message of the full length, one wave in this process
* ``prm``: steps of ``train-prm`` on drawn episodes, all weights (adapters below 75 GB of memory)
* ``ppo``: one update of agent RL on drawn episodes, policy and critic with adapters
* ``vllm``: the episodes of ``decode`` by a vLLM server (``scripts/install_vllm.sh``)

FLOPs are counted by arithmetic: 2 for each weight of a layer and token, 2 for each weight of the output head
and logit, and the products of attention, of which the mask leaves half. Training counts three times that, or
twice under adapters, whose frozen weights have no gradients. Recomputed activations are not counted.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from big import SHAPES, base_model
from drawn import drawn
from rollouts import seconds_of, server_of, tasks
from torch.optim.optimizer import register_optimizer_step_post_hook

from rlprm.models.loading import load_scalar_model
from rlprm.models.lora import with_adapters
from rlprm.policies.config import PolicyConfig
from rlprm.prm.config import PRMConfig
from rlprm.prm.trainer import PRMTrainer
from rlprm.rl.batch import Batch
from rlprm.rl.config import RLConfig
from rlprm.rl.credit import assign_credit
from rlprm.rl.engine import make_engine, start_accelerator
from rlprm.rl.loading import load_model
from rlprm.rl.old_logprobs import read_old_logprobs
from rlprm.rl.update import update
from rlprm.rollouts.waves import rollout
from rlprm.runtime.files import write_json
from rlprm.types import EpisodeSetting, Split, Trajectory

Figures = dict[str, Any]
PARTS = ("decode", "prm", "ppo", "vllm")
PEAKS = {
    "GB200": 2500, "B200": 2250, "H200": 989, "H100 PCIe": 756, "H100": 989, "A100": 312, "L40S": 362,
    "L4": 121, "A10G": 70, "A10": 125, "4090": 165,
}  # fmt: skip
"""TFLOP/s in bfloat16 without sparsity, by the makers' data sheets; the first name that fits counts."""
ENOUGH = 75e9
"""Bytes of device memory for all weights of a 3B model, their gradients and Adam."""
_CONTEXT = 2048
SIZES: dict[str, dict[str, int]] = {
    "3b": {"episodes": 128, "turns": 4, "tokens": 64, "drawn": 64, "longest": 1500, "rows": 4, "warm": 2},
    "tiny": {"episodes": 3, "turns": 2, "tokens": 4, "drawn": 12, "longest": 200, "rows": 2, "warm": 2},
}
"""What is measured: episodes of ``decode`` with their turns and tokens a turn, drawn episodes and the longest
of them, rows of a micro-batch, and steps of training before the clock starts."""


def layer_weights(shape: dict[str, Any]) -> int:
    """Return the weights of the matrices in all layers of a Qwen2 model."""
    width, heads = shape["hidden_size"], shape["num_attention_heads"]
    keys = width * shape["num_key_value_heads"] // heads
    attention = 2 * width * width + 2 * width * keys
    return int(shape["num_hidden_layers"] * (attention + 3 * width * shape["intermediate_size"]))


def forward_flops(shape: dict[str, Any], lengths: Sequence[int], logits: int) -> float:
    """Return the floating-point operations of reading sequences once, each token one time.

    Args:
        shape: of a Qwen2 model, as in :data:`big.SHAPES`.
        lengths: of the sequences, in tokens.
        logits: tokens at which the output head is computed.
    """
    width, layers = shape["hidden_size"], shape["num_hidden_layers"]
    attention = sum(2 * width * layers * length * length for length in lengths)
    head = 2 * width * shape["vocab_size"] * logits
    return float(2 * layer_weights(shape) * sum(lengths) + attention + head)


def rates(flops: float, seconds: float, tokens: int, peak: float | None) -> dict[str, Any]:
    """Return what is said of a part; ``peak`` is in TFLOP/s, None if it is not known."""
    reached = flops / seconds / 1e12
    return {
        "seconds": seconds,
        "tokens": tokens,
        "tokens_per_second": tokens / seconds,
        "tflops_per_second": reached,
        "mfu": None if peak is None else reached / peak,
    }


def peak_of(device: str) -> float | None:
    """Return the device's peak in TFLOP/s; None if it is not known."""
    return next((float(peak) for name, peak in PEAKS.items() if name in device), None)


def now() -> float:
    """Return the time when the device has done all its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def decode(model: str, size: dict[str, int], server: Sequence[str] = ()) -> tuple[list[Trajectory], float]:
    """Return a wave of episodes and its seconds; a small wave goes before."""
    policy = PolicyConfig(
        model=model, max_new_tokens=size["tokens"], context_length=_CONTEXT, server=list(server)
    ).load_policy()

    def run(count: int, first: int) -> list[Trajectory]:
        listed = tasks(Split.TRAIN, first, count, turns=size["turns"])
        return rollout([(task, 0) for task in listed], policy, EpisodeSetting())

    run(min(8, size["episodes"]), 10_000)
    started = now()
    found = run(size["episodes"], 0)
    seconds = now() - started
    assert all(t.error is None for t in found), next(t.error for t in found if t.error)
    return found, seconds


def of_episodes(
    found: Sequence[Trajectory], seconds: float, shape: dict[str, Any], peak: float | None
) -> dict[str, Any]:
    """Return the figures of acting: tokens are the sampled ones, FLOPs those of all."""
    sampled = sum(t.action_tokens for t in found)
    flops = forward_flops(shape, [len(t.token_ids) for t in found], sampled)
    return {"episodes": len(found), **rates(flops, seconds, sampled, peak)}


def acting_part(
    model: str, shape: dict[str, Any], size: dict[str, int], peak: float | None
) -> dict[str, Any]:
    """Measure acting in this process."""
    return of_episodes(*decode(model, size), shape, peak)


def vllm_part(model: str, shape: dict[str, Any], size: dict[str, int], peak: float | None) -> Figures:
    """Measure acting through a vLLM server on the same device."""
    with tempfile.TemporaryDirectory() as folder, server_of(model, folder, 8123) as (url, group):
        figures = of_episodes(*decode(model, size, [url]), shape, peak)
        return {**figures, "processor_seconds_of_server": seconds_of(group)}


def adapters() -> int:
    """Return the rank of adapters that training needs on this device; 0 if its memory holds all weights."""
    if not torch.cuda.is_available():
        return 0
    return 0 if torch.cuda.get_device_properties(0).total_memory > ENOUGH else 16


def prm_part(model: str, shape: dict[str, Any], size: dict[str, int], peak: float | None) -> Figures:
    """Measure steps of PRM training between their ends."""
    found, rank = drawn(size["drawn"], size["longest"], seed=0), adapters()
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        config = PRMConfig(
            trajectories="-", model=model, output_dir=folder, label_estimator="outcome", lora_r=rank,
            per_device_train_batch_size=size["rows"], gradient_accumulation_steps=1, num_train_epochs=1,
            eval_strategy="no", seed=0, gradient_checkpointing=torch.cuda.is_available(),
            trainer_kwargs={"save_strategy": "no", "disable_tqdm": True, "logging_strategy": "no"},
        )  # fmt: skip
        body = load_scalar_model(model, dtype="bfloat16" if rank else "float32")
        trainer = PRMTrainer(with_adapters(body, config, seed=0), config, found, found[:1])
        hook = register_optimizer_step_post_hook(lambda *_: ends.append(now()))
        trainer.train()
        hook.remove()
    steps = [b - a for a, b in pairwise(ends[size["warm"] :])]
    lengths = [len(t.token_ids) for t in found]
    mean = [sum(lengths) / len(lengths)] * size["rows"]
    flops = (2 if rank else 3) * forward_flops(shape, [round(x) for x in mean], 0)
    return {
        "adapters": rank, "rows": size["rows"], "steps": len(steps),
        **rates(flops, statistics.mean(steps), round(sum(mean)), peak),
    }  # fmt: skip


def ppo_part(model: str, shape: dict[str, Any], size: dict[str, int], peak: float | None) -> Figures:
    """Measure an update of agent RL; a part of it goes before."""
    found, on_gpu = drawn(size["drawn"], size["longest"], seed=0), torch.cuda.is_available()
    config = RLConfig(
        environment="drawn", model=model, reward="outcome", advantage="turn_gae", output_dir="-",
        lora_r=16, bf16=on_gpu, gradient_checkpointing=on_gpu,
    ).settled(parameters=layer_weights(shape))  # fmt: skip
    accelerator = start_accelerator(bf16=on_gpu)
    engine = make_engine(load_model(config, on=accelerator.device, bf16=on_gpu), config, accelerator)

    def run(listed: Sequence[Trajectory]) -> float:
        batch = Batch.from_trajectories(listed)
        old = read_old_logprobs(engine, batch, token_budget=config.micro_batch_tokens, with_reference=False)
        credit = assign_credit(batch, None, old, config.credit_setting())
        started = now()
        update(engine, batch, credit, old, config, seed=0, factor=1.0, critic_only=False)
        return now() - started

    run(found[: max(config.minibatches, len(found) // 4)])
    seconds = run(found)
    lengths, sampled = [len(t.token_ids) for t in found], sum(t.action_tokens for t in found)
    one_pass = forward_flops(shape, lengths, sampled) + forward_flops(shape, lengths, 0)
    return {
        "adapters": config.lora_r, "episodes": len(found), "passes": config.ppo_epochs,
        **rates(2 * config.ppo_epochs * one_pass, seconds, config.ppo_epochs * sum(lengths), peak),
    }  # fmt: skip


def run_part(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Run one part in this process."""
    size = "tiny" if given.tiny else "3b"
    model, on_gpu = base_model(given.folder, size), torch.cuda.is_available()
    device = torch.cuda.get_device_name() if on_gpu else "CPU"
    part = {"decode": acting_part, "prm": prm_part, "ppo": ppo_part, "vllm": vllm_part}[name]
    figures = part(model, SHAPES[size], SIZES[size], given.peak_tflops or peak_of(device))
    if on_gpu and name != "vllm":  # whose memory is another process's
        figures["peak_allocated_gb"] = torch.cuda.max_memory_allocated() / 1e9
        figures["peak_reserved_gb"] = torch.cuda.max_memory_reserved() / 1e9
    return figures


def in_own_process(name: str, argv: Sequence[str], seconds: float) -> dict[str, Any]:
    """Run one part in a process of its own, and return its figures or why there are none."""
    if seconds < 10:
        return {"failed": "no time was left"}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "figures.json"
        command = [sys.executable, __file__, *argv, "--here", name, "--output", str(file)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as done:
            try:
                _, printed = done.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                _end(done)
                return {"failed": f"it took more than {seconds:.0f} s"}
        if done.returncode == 0:
            return dict(json.loads(file.read_text()))
        sys.stderr.write(printed)
        said = printed.strip().splitlines()
        return {"failed": said[-1] if said else f"exit status {done.returncode}"}


def _end(part: subprocess.Popen[str]) -> None:
    """Interrupt a part, which then ends its server, and end it if it does not."""
    part.send_signal(signal.SIGINT)
    try:
        part.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        part.kill()


def row(name: str, figures: dict[str, Any]) -> str:
    """Return a line of the table."""
    if "failed" in figures:
        return f"| {name} | – | – | – | {figures['failed']} |"
    mfu = "–" if figures["mfu"] is None else f"{100 * figures['mfu']:.1f} %"
    memory = f"{figures['peak_allocated_gb']:.1f} GB" if "peak_allocated_gb" in figures else "–"
    return f"| {name} | {figures['tokens_per_second']:,.0f} | {mfu} | {memory} | {figures['seconds']:.2f} s |"


def main() -> int:
    """Run the parts, print a table and write one JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--tiny", action="store_true", help="a tiny model, also without a GPU")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--without_vllm", default="", metavar="WHY", help="leave vllm out, for this reason")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench_gpu"), help="for the model")
    parser.add_argument("--output", type=Path, help="where the figures go, as JSON")
    parser.add_argument("--peak_tflops", type=float, help="of the device in bfloat16; known ones by name")
    parser.add_argument("--seconds", type=float, default=400, help="of all parts together")
    parser.add_argument("--here", choices=PARTS, help="run one part in this process")
    given = parser.parse_args()
    if not given.tiny and not torch.cuda.is_available():
        print("gpu.py: there is no GPU; --tiny runs everything with a tiny model", file=sys.stderr)
        return 2
    if given.here:
        logging.basicConfig(level=logging.WARNING)
        write_json(given.output, run_part(given.here, given))
        return 0
    end = time.monotonic() + given.seconds
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    base_model(given.folder, "tiny" if given.tiny else "3b")
    torch.cuda.empty_cache()  # the parts need the memory
    argv = ["--folder", str(given.folder), *(["--tiny"] if given.tiny else [])]
    argv += [] if given.peak_tflops is None else ["--peak_tflops", str(given.peak_tflops)]
    found: dict[str, Any] = {
        "device": device, "model": "tiny" if given.tiny else "3b", "torch": torch.__version__,
        "peak_tflops": given.peak_tflops or peak_of(device), "parts": {},
    }  # fmt: skip
    print(f"{device}\n\n| part | tokens/s | MFU | peak memory | seconds |\n| --- | --- | --- | --- | --- |")
    for name in given.parts:
        skipped = name == "vllm" and given.without_vllm
        figures = (
            {"failed": given.without_vllm} if skipped else in_own_process(name, argv, end - time.monotonic())
        )
        found["parts"][name] = figures
        print(row(name, figures), flush=True)
        if given.output:
            write_json(given.output, found)
    return 0 if all("failed" not in found["parts"][n] for n in given.parts if n != "vllm") else 1


if __name__ == "__main__":
    sys.exit(main())
