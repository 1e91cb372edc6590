"""Whether the alarm rings in healthy runs: twenty small ones, on arithmetic.

    python -m studies.rl.healthy train --folder runs/healthy      # resumable, about half an hour on one core
    python -m studies.rl.healthy report --folder runs/healthy     # -> docs/results/rl-healthy.json

One policy and one AgentPRM, of small forms of the recipes in recipes/math. Ten runs are plain, five
refresh the PRM, and five have a curriculum of round limits. Each has 30 iterations of 16 tasks with 4
samples, its own seed, and so its own tasks. Rates are low, so that no run collapses. The record keeps what
the alarm compares, and a test lets the alarm of today look at it again.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlprm.prm.config import PRMConfig
from rlprm.rl.config import RLConfig
from rlprm.runtime.config import parse
from rlprm.runtime.files import read_json, write_atomically
from rlprm.runtime.record import made
from rlprm.stages import collect, sft, train_prm
from rlprm.stages import train_rl as rl
from rlprm.stages.settings import CollectConfig, SFTStageConfig

__all__ = ["KINDS", "RECORD", "sentence"]

RECORD = Path("docs/results/rl-healthy.json")
KINDS: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "refreshed": {
        "refresh_every": 10, "refresh_kwargs.num_train_epochs": 1, "refresh_kwargs.disable_tqdm": "true",
    },
    "curriculum": {"round_limits": "{0: 5, 10: 6, 20: 8}"},
}  # fmt: skip
RUNS = (*(["plain"] * 10), *(["refreshed"] * 5), *(["curriculum"] * 5))
"""Kind of each run; its place is its seed."""
_RL = {
    "iterations": 30, "tasks_per_iteration": 16, "samples_per_task": 4, "learning_rate": 3e-5,
    "advantage": "outcome_plus_progress", "lr_schedule": "constant", "eval_every": 0, "test_tasks": 0,
    "save_every": 10, "repeat_probe": 0,
}  # fmt: skip


def train(folder: Path) -> None:
    """Make policy and PRM, and run what is not finished."""
    of_all = {"root": folder, "seed": 0}
    sft.run(_parsed(SFTStageConfig, "sft", {**of_all, "disable_tqdm": "true"}))
    collect.run(_parsed(CollectConfig, "collect", {**of_all, "num_tasks": 512}))
    train_prm.run(_parsed(PRMConfig, "train_prm", {**of_all, "disable_tqdm": "true"}))
    for seed, kind in enumerate(RUNS):
        output = folder / f"{seed:02d}-{kind}"
        changes = {"root": folder, "seed": seed, "output_dir": output, **_RL, **KINDS[kind]}
        rl.run(_parsed(RLConfig, "train_rl", changes))


def _parsed(config_type: type[Any], recipe: str, changes: Mapping[str, Any]) -> Any:
    words = [text for name, value in changes.items() for text in (f"--{name}", str(value))]
    return parse(config_type, ["--config", f"recipes/math/{recipe}_tiny.yaml", *words])


def report(folder: Path, output: Path) -> None:
    """Write what the alarm compared in each run, and whether it rang."""
    runs = []
    for seed, kind in enumerate(RUNS):
        run = folder / f"{seed:02d}-{kind}"
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        runs.append(
            {
                "seed": seed, "kind": kind, "rang": read_json(run / "summary.json")["alarm"],
                "success": [round(row["rollout/success"], 4) for row in rows],
                "watch": [_rounded(row["watch"]) for row in rows],
            }
        )  # fmt: skip
    commands = [f"python -m studies.rl.healthy {part}" for part in ("train", "report")]
    record = {"what": __doc__, "commands": commands, "made": made(), "runs": runs}
    write_atomically(output, json.dumps(record, separators=(",", ":")) + "\n")  # without 40,000 lines


def _rounded(watch: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    return {sign: {k: float(f"{v:.5g}") for k, v in found.items()} for sign, found in watch.items()}


def sentence(record: Mapping[str, Any]) -> str:
    """Return the record in a line."""
    runs = record["runs"]
    counts = {kind: [run for run in runs if run["kind"] == kind] for kind in KINDS}
    rang = {kind: sum(bool(run["rang"]) for run in of_kind) for kind, of_kind in counts.items()}
    each = ", ".join(f"{rang[kind]} of {len(of_kind)} {kind}" for kind, of_kind in counts.items())
    first, last = ([100 * sum(run["success"][i:j]) / 5 for run in runs] for i, j in ((0, 5), (-5, None)))
    means = [sum(part) / len(runs) for part in (first, last)]
    return (
        f"In {len(runs)} small runs of {len(runs[0]['success'])} iterations the alarm rang in {each}. "
        f"Success in the training episodes went from {means[0]:.1f} % in the first five iterations to "
        f"{means[1]:.1f} % in the last five."
    )


def main() -> None:
    """Run one part of the study."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["train", "report"])
    parser.add_argument("--folder", type=Path, default=Path("runs/healthy"))
    parser.add_argument("--output", type=Path, default=RECORD)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if arguments.part == "train":
        train(arguments.folder)
    else:
        report(arguments.folder, arguments.output)


if __name__ == "__main__":
    main()
