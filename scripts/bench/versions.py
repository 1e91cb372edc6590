"""Processor time of this version's inner loops and of another version's, alternating in one process.

git worktree add ../before v0.2.0
python scripts/bench/versions.py --against ../before --config textcraft/collect_tiny.yaml --root runs/first

Other options are settings of a collection (``rlprm collect``), whose policy and tasks are used. The
scorer is the policy with a random head. The least time of each version is printed, and how many results are
equal.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parents[2]


class Version:
    """The package in a folder, beside those of other folders."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.modules = str(folder.resolve()), dict[str, Any]()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make imports return the modules of this version."""
        sys.path.insert(0, self.folder)
        sys.modules.update(self.modules)
        try:
            yield
        finally:
            sys.path.remove(self.folder)
            self.modules = {name: m for name, m in sys.modules.items() if name.split(".")[0] == "rlprm"}
            for name in self.modules:
                del sys.modules[name]


def settings(argv: Sequence[str]) -> Any:
    """Return the settings of a collection."""
    from rlprm.runtime.config import parse
    from rlprm.stages.settings import CollectConfig

    return parse(CollectConfig, argv)


def tasks(config: Any, count: int) -> list[Any]:
    """Return the first tasks of a collection."""
    from rlprm import envs
    from rlprm.types import Split

    return envs.tasks(
        config.environment, Split(config.split), config.first_task, count, config.env_kwargs
    )  # fmt: skip


def scorer_of(config: Any, policy: Any) -> Any:
    """Return a scorer: the policy's body under a random head."""
    from rlprm.models.loading import head_of, load_scalar_model
    from rlprm.models.manifest import Manifest
    from rlprm.scorers.checkpoint import CheckpointScorer

    model = load_scalar_model(config.model, dtype=config.dtype).eval()
    generator = torch.Generator().manual_seed(0)
    for name in head_of(model):
        weight = model.get_submodule(name).weight
        weight.data.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    shared = ("environment", "env_kwargs", "end", "round_limit", "prompt", "action_format", "temperature")
    manifest = Manifest(
        label_estimator="outcome", label_estimator_kwargs={}, beta=0.0, loss="mse", activation="identity",
        relabel="epoch", cold_start_epochs=0, value_reads="action", outcome="success",
        outcome_definition="", template=policy.renderer.template_hash, base="", policy=policy.revision,
        **{name: getattr(config, name) for name in shared},
    )  # fmt: skip
    return CheckpointScorer("prm", model, manifest)


def episodes(config: Any, count: int) -> list[Any]:
    """Return jobs of a wave, each task as often as the collection takes it."""
    found = tasks(config, -(-count // config.samples_per_task))
    return [(task, sample) for task in found for sample in range(config.samples_per_task)][:count]


def rollouts(argv: Sequence[str], count: int) -> Callable[[], Any]:
    """Episodes side by side; their token ids."""
    from rlprm.rollouts.collection import rollout  # the name is there in every version

    config = settings(argv)
    policy, jobs = config.load_policy(), episodes(config, count)
    return lambda: [t.token_ids for t in rollout(jobs, policy, config.episode_setting(), config.seed)]


def beam(argv: Sequence[str], count: int) -> Callable[[], Any]:
    """Beam search 8x8; the token ids of the chosen episodes."""
    from rlprm.search import beam

    config = settings(argv)
    policy = config.load_policy()
    scorer, chosen = scorer_of(config, policy), tasks(config, count)

    def search() -> Any:
        found = beam.search(chosen, policy, scorer, config.episode_setting(), n=8, m=8)
        return [result.trajectory.token_ids for result in found]

    return search


def branches(argv: Sequence[str], count: int) -> tuple[Any, list[Any]]:
    """Return a scorer's model, and 16 branches of 8 tokens behind each of some prefixes of 350."""
    from rlprm.models.heads.value_positions import ValuePosition
    from rlprm.models.kv_cache.prefix_reader import Branch

    config = settings(argv)
    model = scorer_of(config, config.load_policy()).model
    draw = torch.Generator().manual_seed(0)
    stems = torch.randint(3, 100, (count, 350), generator=draw).tolist()
    actions = torch.randint(3, 100, (count, 16, 8), generator=draw).tolist()
    positions = [ValuePosition.at(349), ValuePosition.at(357)]
    return model, [
        Branch([*stem, *action], positions, 0, 350, number)
        for number, (stem, of_stem) in enumerate(zip(stems, actions, strict=True))
        for action in of_stem
    ]


def candidates(argv: Sequence[str], count: int) -> Callable[[], Any]:
    """Values of such branches, as a search reads them; rounded."""
    from rlprm.models.kv_cache import support
    from rlprm.models.kv_cache.prefix_reader import PrefixReader

    model, chosen = branches(argv, count)

    def read() -> Any:
        reader = PrefixReader(model)
        if hasattr(support, "reads_trees"):  # a version that has trees
            reader.trees = support.reads_trees(model)
        return [[round(value, 3) for value in row] for row in reader.read(chosen)[0]]

    return read


def padded(argv: Sequence[str], count: int) -> Callable[[], Any]:
    """The same values, read in one padded batch without a cache."""
    from rlprm.models.heads.reading import read_sequences

    model, chosen = branches(argv, count)
    ids, positions = [b.ids for b in chosen], [b.positions for b in chosen]

    def read() -> Any:
        found = read_sequences(model, ids, positions, [range(len(ids))])
        return [[round(value, 3) for value in row] for row in found]

    return read


def update(argv: Sequence[str], count: int) -> Callable[[], Any]:
    """One PPO update of policy and critic by returns of episodes; the loss, rounded."""
    from rlprm.rl.batch import Batch
    from rlprm.rl.config import RLConfig
    from rlprm.rl.credit import assign_credit
    from rlprm.rl.engine import make_engine, start_accelerator
    from rlprm.rl.loading import load_model
    from rlprm.rl.old_logprobs import read_old_logprobs
    from rlprm.rl.update import update
    from rlprm.rollouts.collection import rollout  # the name is there in every version

    config = settings(argv)
    found = rollout(episodes(config, count), config.load_policy(), config.episode_setting(), config.seed)
    # Versions whose default advantage needs a PRM have this name for the setting.
    critic = {"advantage": "turn_gae"} if hasattr(RLConfig, "advantage") else {}
    rl = RLConfig(
        environment=config.environment, model=config.model, reward="outcome", bf16=False, **critic,
        max_new_tokens=config.max_new_tokens, output_dir="-", learning_rate=1e-9,
    ).settled(parameters=1)  # fmt: skip
    model = load_model(rl, on=torch.device("cpu"), bf16=False)
    engine, batch = make_engine(model, rl, start_accelerator(bf16=False)), Batch.from_trajectories(found)

    def step() -> Any:
        old = read_old_logprobs(
            engine, batch, token_budget=rl.micro_batch_tokens, with_reference=False
        )  # fmt: skip
        credit = assign_credit(batch, None, old, rl.credit_setting())
        stats = update(engine, batch, credit, old, rl, seed=0, factor=1.0, critic_only=False)
        return [round(stats.value_loss, 4), round(stats.grad_norm, 3)]

    return step


def labels(argv: Sequence[str], count: int) -> Callable[[], Any]:
    """Labels of trajectories of 1 to 30 steps as plain values."""
    from rlprm.labels import returns, to_step_labels

    draw = torch.Generator().manual_seed(0)
    lengths_B = torch.randint(1, 31, (count,), generator=draw)
    made = returns.label(None, torch.rand(count, generator=draw), lengths_B)
    return lambda: to_step_labels(made, lengths_B)


PARTS = {
    "rollouts": (rollouts, 128),
    "beam": (beam, 4),
    "candidates": (candidates, 4),
    "padded": (padded, 4),
    "update": (update, 128),
    "labels": (labels, 4096),
}


def main() -> None:
    """Print a line for each part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--against", type=Path, required=True, help="folder of another version")
    parser.add_argument("--config", default="", help="recipe of a collection")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--count", type=int, help="episodes, tasks, prefixes or trajectories of a part")
    parser.add_argument("--times", type=int, default=3, help="runs of each version")
    options, argv = parser.parse_known_args()
    argv = [*(["--config", options.config] if options.config else []), *argv]
    torch.set_num_threads(1)
    versions = {"before": Version(options.against), "now": Version(HERE)}
    for part in options.parts:
        prepare, count = PARTS[part]
        runs, results, seconds = {}, {}, {name: list[float]() for name in versions}
        for name, version in versions.items():
            with version.active():
                runs[name] = prepare(argv, options.count or count)
                results[name] = runs[name]()  # also a warm-up
        for _ in range(options.times):
            for name, version in versions.items():
                with version.active():
                    started = time.process_time()
                    runs[name]()
                    seconds[name].append(time.process_time() - started)
        before, now = (min(of) for of in seconds.values())
        # Values of two versions are of two classes.
        same = sum(repr(a) == repr(b) for a, b in zip(*results.values(), strict=True))
        print(
            f"{part}: {1e3 * before:.1f} ms before, {1e3 * now:.1f} ms now, ratio {before / now:.2f}; "
            f"{same} of {len(results['now'])} results are equal",
            flush=True,
        )


if __name__ == "__main__":
    main()
