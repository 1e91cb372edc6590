"""One PPO update here and by TRL's PPOTrainer, on the same episodes and models: tokens a processor second.

    pip install --no-deps --target runs/trl-1.12 trl==1.12.0  # the last version with PPO
    python scripts/bench/update.py --trl runs/trl-1.12 --drawn 1000     # drawn episodes, a tiny model
    python scripts/bench/update.py --trl runs/trl-1.12 --config textcraft/collect_tiny.yaml --root runs/first

Other options are settings of a collection (``rlprm collect``), whose policy acts for the episodes. Both
updates train a policy and a critic of its own in float32, with as many passes and minibatches (the defaults
here). Advantages are ``turn_gae`` here. The rest is at the defaults of each, and gradient checkpointing is
off. What differs:

* TRL takes 8 rows forward at a time (``per_device_train_batch_size``), padded to the longest episode of all
* TRL computes logits after the first prompt at every token, and an update here at sampled tokens only
* TRL learns from every token after the first prompt, because its PPO has no mask of turns

Only the update is timed, from whitened advantages to the last optimiser step. Old log-probabilities, values
and rewards are read before. Tokens are those of the episodes, without padding, times the passes.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from drawn import drawn
from rollouts import tiny_policy
from versions import episodes, settings

from rlprm.errors import ConfigError
from rlprm.rl.batch import Batch
from rlprm.rl.config import RLConfig
from rlprm.rl.credit import assign_credit
from rlprm.rl.engine import make_engine, start_accelerator
from rlprm.rl.loading import load_model
from rlprm.rl.old_logprobs import read_old_logprobs
from rlprm.rl.update import update
from rlprm.rollouts.waves import rollout
from rlprm.types import Trajectory

RATE = 1e-9
"""Step size of both, so small that every run sees the same model."""


def config_of(collection: Any) -> RLConfig:
    """Return the defaults of agent RL for a collection's policy."""
    return RLConfig(
        environment=collection.environment, model=collection.model, reward="outcome", advantage="turn_gae",
        bf16=False,
        max_new_tokens=collection.max_new_tokens, output_dir="-", learning_rate=RATE, dtype="float32",
    ).settled(parameters=1)  # fmt: skip


def here(found: Sequence[Trajectory], config: RLConfig, times: int) -> list[float]:
    """Return the processor seconds of updates here."""
    model = load_model(config, on=torch.device("cpu"), bf16=False)
    engine, batch = make_engine(model, config, start_accelerator(bf16=False)), Batch.from_trajectories(found)
    old = read_old_logprobs(engine, batch, token_budget=config.micro_batch_tokens, with_reference=False)
    credit = assign_credit(batch, None, old, config.credit_setting())
    seconds = []
    for seed in range(times):
        started = time.process_time()
        update(engine, batch, credit, old, config, seed=seed, factor=1.0, critic_only=False)
        seconds.append(time.process_time() - started)
    return seconds


def unused_token(found: Sequence[Trajectory], vocabulary: int) -> int:
    """Return a token id that no episode has: TRL masks the padding token wherever it stands."""
    used = {token for t in found for token in t.token_ids}
    return next(token for token in range(vocabulary) if token not in used)


def split(found: Sequence[Trajectory], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the prompts, padded on the left, and the rest of the episodes, padded on the right."""
    prompts = [list(t.token_ids[: t.prompt_length]) for t in found]
    rest = [list(t.token_ids[t.prompt_length :]) for t in found]
    wide, long = max(map(len, prompts)), max(map(len, rest))
    return (
        torch.tensor([[pad] * (wide - len(p)) + p for p in prompts]),
        torch.tensor([r + [pad] * (long - len(r)) for r in rest]),
    )


def by_trl(found: Sequence[Trajectory], config: RLConfig, times: int) -> list[float]:
    """Return the processor seconds of TRL's updates.

    Raises:
        ConfigError: if the number of episodes does not suit TRL's batches.
    """
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
    from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

    tokenizer = config.load_tokenizer(config.model)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(unused_token(found, len(tokenizer)))
    queries, responses = split(found, tokenizer.pad_token_id)
    both, width = torch.cat([queries, responses], 1), queries.shape[1]
    each = PPOConfig(use_cpu=True, bf16=False).per_device_train_batch_size
    if len(found) % (each * config.minibatches):
        raise ConfigError(
            f"count: got {len(found)}, allowed for TRL: a multiple of {each * config.minibatches}"
        )

    def causal() -> Any:
        return AutoModelForCausalLM.from_pretrained(config.model, dtype=torch.float32)

    def scalar() -> Any:
        made = AutoModelForSequenceClassification.from_pretrained(
            config.model, num_labels=1, dtype=torch.float32
        )
        made.config.pad_token_id = tokenizer.pad_token_id
        return made

    marks: list[float] = []

    class Trainer(PPOTrainer):
        def log(self, *_: Any, **__: Any) -> None:
            marks.append(time.process_time())

    def given(model: Any, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        rows = [
            ppo_trainer.forward(model, part, tokenizer.pad_token_id).logits[:, width - 1 : -1]
            for part in both.split(each)
        ]
        return both, torch.cat(rows) / (settings_of_trl.temperature + 1e-7)

    def whiten(*args: Any, **kwargs: Any) -> torch.Tensor:
        made = whitening(*args, **kwargs)
        marks.append(time.process_time())  # the update begins after the advantages
        return made

    whitening = ppo_trainer.masked_whiten
    with tempfile.TemporaryDirectory() as folder:
        settings_of_trl = PPOConfig(
            output_dir=folder, report_to="none", use_cpu=True, bf16=False, gradient_checkpointing=False,
            learning_rate=RATE, num_ppo_epochs=config.ppo_epochs, num_mini_batches=config.minibatches,
            gradient_accumulation_steps=len(found) // each, total_episodes=times * len(found),
            num_sample_generations=0, save_strategy="no", eval_strategy="no", disable_tqdm=True,
            response_length=responses.shape[1],
        )  # fmt: skip
        trainer = Trainer(
            args=settings_of_trl, processing_class=tokenizer, model=causal(), ref_model=causal(),
            reward_model=scalar(), value_model=scalar(),
            train_dataset=Dataset.from_list([{"input_ids": row} for row in queries.tolist()]),
            eval_dataset=Dataset.from_list([{"input_ids": row} for row in queries[:1].tolist()]),
        )  # fmt: skip
        trainer.dataloader = [{"input_ids": queries}]  # in the order of the episodes
        with (
            mock.patch.object(ppo_trainer, "batch_generation", torch.no_grad()(given)),
            mock.patch.object(ppo_trainer, "masked_whiten", whiten),
        ):
            trainer.train()
    assert len(marks) == 2 * times, "TRL whitens once an update and logs once"
    return [end - start for start, end in zip(marks[::2], marks[1::2], strict=True)]


def main() -> None:
    """Print the figures, and as the last line all of them as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--trl", type=Path, required=True, help="folder with a TRL that has PPO")
    parser.add_argument("--count", type=int, default=128, help="episodes, a multiple of 32")
    parser.add_argument("--times", type=int, default=3, help="updates of each")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--config", default="", help="recipe of a collection")
    parser.add_argument("--size", default="s", help="of the tiny model for drawn episodes: xs, s, m, l")
    parser.add_argument("--drawn", type=int, default=0, help="draw episodes, each of at most so many tokens")
    options, argv = parser.parse_known_args()
    if not (options.trl / "trl" / "experimental" / "ppo").is_dir():
        raise ConfigError(f"trl: got {options.trl}, allowed: a folder with trl/experimental/ppo")
    sys.path.insert(0, str(options.trl))
    torch.set_num_threads(options.threads)
    logging.getLogger("trl").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        if options.drawn:
            argv += [
                "--model",
                tiny_policy(Path(folder) / "policy", size=options.size),
                "--environment",
                "drawn",
            ]
            argv += ["--output_dir", "-"]
        collection = settings([*(["--config", options.config] if options.config else []), *argv])
        if options.drawn:
            found = drawn(options.count, options.drawn, seed=0)
        else:
            found = rollout(
                episodes(collection, options.count), collection.load_policy(), collection.episode_setting(),
                collection.seed,
            )  # fmt: skip
        print_figures(found, config_of(collection), options.times)


def print_figures(found: Sequence[Trajectory], config: RLConfig, times: int) -> None:
    """Measure both, in turn, and print what was found."""
    tokens = config.ppo_epochs * sum(len(t.token_ids) for t in found)
    figures: dict[str, Any] = {"episodes": len(found), "tokens": tokens, "passes": config.ppo_epochs}
    seconds: dict[str, list[float]] = {"here": [], "trl": []}
    for _ in range(times):
        for name, run in (("here", here), ("trl", by_trl)):
            seconds[name] += run(found, config, 1)
    for name, of_name in seconds.items():
        figures[name] = statistics.median(of_name)
        print(
            f"{name}: {figures[name]:.2f} processor s an update (median of {times}), "
            f"{1e6 * figures[name] / tokens:.1f} µs a token, {tokens / figures[name]:.0f} tokens a second",
            flush=True,
        )
    figures["ratio"] = statistics.median(b / a for a, b in zip(seconds["here"], seconds["trl"], strict=True))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
