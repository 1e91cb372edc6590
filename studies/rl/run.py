"""Agent RL with different rewards at equal environment steps: curves, before and after, several seeds.

    python -m studies.rl.run train --seeds 0 1 2     # resumable; --variants for a subset
    python -m studies.rl.run report --seeds 0 1 2    # -> docs/results/rl.json, docs/results/rl.png

Every seed has its own policy and PRM. A variant is the tiny RL recipe with some settings changed; a
run ends when it has taken ``--env_steps`` steps (rewards that make episodes longer get fewer iterations).
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from rlprm.rl.config import RLConfig
from rlprm.runtime.files import read_json, write_json
from rlprm.stages import train_rl as rl
from studies.prm_recipe.run import trained_prm
from studies.stages import parsed, trained_model

ENVIRONMENT = "babyai: GoToLocalS8N7, PickupLoc, end declared"
LEVELS = (0.6, 0.7, 0.75, 0.8)
"""Success rates on dev tasks that runs are timed to."""


@dataclass(frozen=True)
class Variant:
    """Settings that differ from the recipe with progress rewards and GAE."""

    about: str
    settings: Mapping[str, Any]
    prm: str = "paper"
    """Variant of ``studies.prm_recipe.run`` that pays; none where empty."""


VARIANTS = {
    "filtered": Variant(
        "cloning of its own successes", {"reward": "outcome", "advantage": "cloning"}, prm=""
    ),
    "outcome": Variant("outcome, GAE with a critic that starts as the PRM", {"reward": "outcome"}),
    "outcome_plain": Variant(
        "outcome, GAE with a critic that starts at 0: no PRM at all", {"reward": "outcome"}, prm=""
    ),
    "outcome_loo": Variant(
        "outcome, leave-one-out, no critic", {"reward": "outcome", "advantage": "leave_one_out"}, prm=""
    ),
    "progress": Variant("progress of the PRM, GAE with a critic", {}),
    "progress_lam0.5": Variant("progress, λ 0.5", {"advantage_kwargs.lam": 0.5}),
    "promise": Variant("promise of the PRM, GAE with a critic", {"reward": "promise"}),
    "min": Variant("min-form credit, GAE with a critic", {"reward": "min"}),
    "prm_critic": Variant("outcome, the PRM as critic", {"reward": "outcome", "advantage": "prm_critic"}),
    "head_critic": Variant(
        "outcome, a PRM with an lm head as critic",
        {"reward": "outcome", "advantage": "prm_critic"},
        prm="head_states",
    ),
    "head_critic_lam0.5": Variant(
        "outcome, a PRM with an lm head as critic, λ 0.5",
        {"reward": "outcome", "advantage": "prm_critic", "advantage_kwargs.lam": 0.5},
        prm="head_states",
    ),
    "head_critic_epochs4": Variant(
        "outcome, a PRM with an lm head as critic, 4 PPO epochs an iteration",
        {"reward": "outcome", "advantage": "prm_critic", "ppo_epochs": 4},
        prm="head_states",
    ),
    "outcome_plain_epochs4": Variant(
        "outcome, no PRM, 4 PPO epochs an iteration", {"reward": "outcome", "ppo_epochs": 4}, prm=""
    ),
    "filtered_epochs4": Variant(
        "cloning of its own successes, 4 passes over them",
        {"reward": "outcome", "advantage": "cloning", "ppo_epochs": 4},
        prm="",
    ),
    "head_critic_16": Variant(
        "outcome, a PRM with an lm head as critic, 16 minibatches an iteration",
        {"reward": "outcome", "advantage": "prm_critic", "minibatches": 16},
        prm="head_states",
    ),
    "outcome_plain_16": Variant(
        "outcome, no PRM, 16 minibatches an iteration", {"reward": "outcome", "minibatches": 16}, prm=""
    ),
    "progress_refresh": Variant("progress, PRM trained on every 10 iterations", {"refresh_every": 10}),
}


COMMON: Mapping[str, Any] = {
    "reward": "progress", "advantage": "turn_gae", "ppo_epochs": 1, "target_kl": "null", "refresh_every": 0,
    "iterations": 1000, "select": "last", "eval_every": 4,
}  # fmt: skip
"""Settings of all variants, before a variant's own."""


def train(root: Path, seed: int, names: Sequence[str], env_steps: int) -> None:
    """Train the variants of one seed; what exists is kept."""
    policy, folder = trained_model(root, seed, "policy"), root / f"s{seed}"
    for name in names:
        variant = VARIANTS[name]
        overrides = {
            "model": policy, "prm": variant.prm and trained_prm(root, seed, variant.prm), "seed": seed,
            "max_env_steps": env_steps, "output_dir": str(folder / "rl" / name),
            **COMMON, **variant.settings,
        }  # fmt: skip
        rl.run(parsed(RLConfig, "train_rl", overrides))


def report(root: Path, seeds: Sequence[int], output: Path) -> None:
    """Write one record a run, print a table of means over seeds, and draw the curves."""
    records = [
        _record(root / f"s{seed}" / "rl" / name, name, seed)
        for name in VARIANTS
        for seed in seeds
        if (root / f"s{seed}" / "rl" / name / "stage.json").exists()
    ]
    write_json(
        output,
        {
            "what": "rlprm train-rl on recipes/babyai/train_rl_tiny.yaml at equal environment steps",
            "commands": ["python -m studies.rl.run train", "python -m studies.rl.run report"],
            "variants": {name: variant.about for name, variant in VARIANTS.items()},
            "runs": records,
        },
    )
    _print(records)
    _draw(records, output.with_suffix(".png"))


def _record(folder: Path, name: str, seed: int) -> dict[str, Any]:
    summary = read_json(folder / "summary.json")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    seen = [row for row in rows if "eval/success" in row]
    tokens = "rollout/sampled_tokens"
    curve = [
        # Runs of 0.1.0 have another name for the tokens.
        (row["rollout/env_steps"], row.get(tokens, row.get("rollout/policy_tokens")), row["eval/success"])
        for row in seen
    ]
    reached = {}
    for level in LEVELS:
        first = next(((steps, tokens) for steps, tokens, success in curve if success >= level), None)
        reached[str(level)] = None if first is None else {"env_steps": first[0], "tokens": first[1]}
    return {
        "environment": ENVIRONMENT,
        "variant": name,
        "reward": summary["reward"],
        "advantage": summary["advantage"],
        "seed": seed,
        "before": summary["before"],
        "after": summary["after"],
        "difference": summary["difference"],
        "env_steps": summary["env_steps"],
        "tokens": summary["tokens"],
        "iterations": summary["iterations"],
        "seconds": summary["seconds"],
        "alarm": summary["alarm"],
        "repeat_probe": summary.get("repeat_probe"),
        "reached": reached,
        "turns": [round(rows[0]["rollout/turns"], 2), round(rows[-1]["rollout/turns"], 2)],
        "curve": [[steps, round(success, 4)] for steps, _, success in curve],
        "training": [[row["rollout/env_steps"], round(row["rollout/success"], 4)] for row in rows],
    }


def _print(records: Sequence[Mapping[str, Any]]) -> None:
    table = Table(title="test tasks, sampled success in %, mean over seeds (each seed)")
    for heading in ("variant", "before", "after", "gain", "greedy after", "steps to 70 %", "alarms", "turns"):
        table.add_column(heading)
    for name in VARIANTS:
        runs = [r for r in records if r["variant"] == name]
        if not runs:
            continue
        before, after = ([100 * r[when]["sample"]["mean"] for r in runs] for when in ("before", "after"))
        greedy = np.mean([100 * r["after"]["greedy"]["mean"] for r in runs])
        steps = [r["reached"]["0.7"] and r["reached"]["0.7"]["env_steps"] for r in runs]
        each = ", ".join(f"{x:.1f}" for x in after)
        table.add_row(
            name, f"{np.mean(before):.1f}", f"{np.mean(after):.1f} ({each})",
            f"{np.mean(after) - np.mean(before):+.1f}", f"{greedy:.1f}",
            ", ".join("-" if s is None else f"{s:,}" for s in steps),
            str(sum(bool(r["alarm"]) for r in runs)), ", ".join(f"{r['turns'][1]:.1f}" for r in runs),
        )  # fmt: skip
    Console(width=150).print(table)


def _draw(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw success in the training episodes, mean over seeds; variants that lack a seed are left out."""
    seeds = {r["seed"] for r in records}
    figure = Figure(figsize=(8, 5), layout="constrained")
    axis = figure.subplots()
    for colour, name in zip(map(mpl.colormaps["tab20"], range(len(VARIANTS))), VARIANTS, strict=True):
        curves = [r["training"] for r in records if r["variant"] == name]
        if len(curves) < len(seeds):
            continue
        shortest = min(map(len, curves))
        steps = np.mean([[point[0] for point in curve[:shortest]] for curve in curves], axis=0)
        success = 100 * np.array([[point[1] for point in curve[:shortest]] for curve in curves])
        axis.plot(steps, success.mean(0), label=name, color=colour)
    axis.set_xlabel("environment steps")
    axis.set_ylabel("success on new training tasks in %, sampled")
    axis.set_title(f"mean of {len(seeds)} seeds; all variants of a seed see the same tasks")
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run one part of the study."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["train", "report"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS), metavar="NAME"
    )
    parser.add_argument("--env_steps", type=int, default=25_000)
    parser.add_argument("--folder", type=Path, default=Path("runs/study_rl"))
    parser.add_argument("--output", type=Path, default=Path("docs/results/rl.json"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if arguments.part == "report":
        report(arguments.folder, arguments.seeds, arguments.output)
        return
    for seed in arguments.seeds:
        train(arguments.folder, seed, arguments.variants, arguments.env_steps)


if __name__ == "__main__":
    main()
