"""Agent RL by what the PRM gives to an update, at equal environment steps: the PRM's own episodes count.

    bash scripts/quickstart.sh --seed 0 --output_dir runs/quickstart_s0     # policy, AgentPRM and clone
    python -m studies.rl.arms train --seed 0 --root runs/quickstart_s0      # resumable
    python -m studies.rl.arms report                                        # -> docs/results/rl-arms.json

Every arm starts from the same policy and meets the same tasks in the same order. An arm that owes its PRM or
its clone the quickstart's rollouts stops that many environment steps earlier. Arms differ in credit alone:
passes, rates and ``target_kl`` are the recipe's, and nothing is refreshed or selected. The weight α
of ``outcome_plus_progress`` is chosen on dev tasks. Test tasks are measured for all arms.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlprm.data.store import TrajectoryStore
from rlprm.functional.statistics.bootstrap import paired_interval
from rlprm.rl.config import RLConfig
from rlprm.runtime.files import read_json, write_json
from rlprm.runtime.record import read_record
from rlprm.stages import train_rl as rl
from studies.stages import parsed

__all__ = ["ARMS", "RECORD", "table"]

RECORD = Path("docs/results/rl-arms.json")
FOLDER = "arms"


@dataclass(frozen=True)
class Arm:
    """Settings that differ between arms."""

    about: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    prm: bool = False
    """Whether the AgentPRM decides credit, or the critic starts from it."""
    clone: bool = False
    """Whether the run starts from the clone of the successes among the PRM's episodes."""


def _summed(alpha: float) -> Arm:
    return Arm(
        f"outcome + {alpha:g} × progress", prm=True,
        settings={"advantage": "outcome_plus_progress", "advantage_kwargs.alpha": alpha},
    )  # fmt: skip


ARMS = {
    "plus_progress_1": _summed(1.0),
    "plus_progress_3": _summed(3.0),
    "plus_progress_10": _summed(10.0),
    "prm_critic": Arm("outcome, the PRM as critic", {"advantage": "prm_critic"}, prm=True),
    "from_prm": Arm(
        "outcome, critic that starts as the PRM (the same as progress)", {"advantage": "turn_gae"}, prm=True
    ),
    "from_zero": Arm("outcome, critic that starts at 0", {"advantage": "turn_gae"}),
    "leave_one_out": Arm("outcome, leave-one-out", {"advantage": "leave_one_out"}),
    "cloning": Arm("cloning of its own successes", {"advantage": "cloning"}),
    "clone_leave_one_out": Arm(
        "outcome, leave-one-out, from the clone", {"advantage": "leave_one_out"}, clone=True
    ),
}

COMPARED = (
    ("plus_progress_1", "from_zero"),
    ("plus_progress_1", "from_prm"),
    ("plus_progress_1", "cloning"),
    ("prm_critic", "from_zero"),
    ("from_prm", "from_zero"),
    ("cloning", "leave_one_out"),
    ("clone_leave_one_out", "leave_one_out"),
)
"""Pairs of arms whose difference stands in the record."""


def train(root: Path, seed: int, names: Sequence[str], env_steps: int) -> None:
    """Run the arms of a seed in the folder of its quickstart; what is finished is kept."""
    owed = sum(len(t.steps) for t in TrajectoryStore.open(root / "rollouts").read())
    for name in names:
        arm = ARMS[name]
        overrides = {
            "root": root, "seed": seed, "output_dir": root / FOLDER / name,
            "model": root / ("clone" if arm.clone else "policy"),
            "prm": root / "agentprm" if arm.prm else "",
            "max_env_steps": env_steps - owed * (arm.prm or arm.clone),
            "iterations": 1000, "tasks_per_iteration": 48, "refresh_every": 0, "select": "last",
            "eval_every": 1000, "eval_tasks": 128, "eval_samples": 2, "test_tasks": 192, "test_samples": 2,
            "repeat_probe": 0, "save_every": 4, "reward": "outcome", **arm.settings,
        }  # fmt: skip
        rl.run(parsed(RLConfig, "train_rl", overrides))


def _rows(root: Path) -> list[dict[str, Any]]:
    """Return the rows of the arms that are finished in the folder of a quickstart."""
    owed = sum(len(t.steps) for t in TrajectoryStore.open(root / "rollouts").read())
    finished = [name for name in ARMS if (root / FOLDER / name / "summary.json").exists()]
    return [_row(root, name, owed) for name in finished]


def _row(root: Path, name: str, owed: int) -> dict[str, Any]:
    folder, arm = root / FOLDER / name, ARMS[name]
    summary, record = read_json(folder / "summary.json"), read_record(folder)
    journal = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    shares = [row["credit/prm_share"] for row in journal if "credit/prm_share" in row]
    return {
        "arm": name, "about": arm.about, "seed": record["config"]["seed"],
        "env_steps": summary["env_steps"], "owed_steps": owed * (arm.prm or arm.clone),
        "iterations": summary["iterations"], "dev": round(100 * journal[-1]["eval/success"], 1),
        **{
            f"{how}_{when}": {part: round(100 * value, 1) for part, value in summary[when][how].items()}
            for how in ("sample", "greedy") for when in ("before", "after", "difference")
        },
        "declared": round(100 * summary["after"]["sample_declared_success"]["mean"], 1),
        "turns": [round(journal[0]["rollout/turns"], 2), round(journal[-1]["rollout/turns"], 2)],
        "prm_share": [round(share, 3) for share in shares],
        "training": [[row["rollout/env_steps"], round(row["rollout/success"], 4)] for row in journal],
        "alarm": summary["alarm"], "minutes": round(sum(summary["seconds"].values()) / 60, 1),
        "test_tasks": [round(value, 3) for value in read_json(folder / "after.json")["sample"].values()],
        "made": record["made"],
    }  # fmt: skip


def report(roots: Sequence[Path], output: Path) -> None:
    """Add the rows of some folders to the record; a row of the same arm and seed is replaced."""
    rows = read_json(output)["rows"] if output.exists() else []
    found = [row for root in roots for row in _rows(root)]
    new = {(row["seed"], row["arm"]) for row in found}
    kept = [row for row in rows if (row["seed"], row["arm"]) not in new]
    order = list(ARMS)
    merged = sorted([*kept, *found], key=lambda row: (row["seed"], order.index(row["arm"])))
    write_json(
        output,
        {
            "what": "rlprm train-rl (babyai/train_rl_tiny.yaml) from a quickstart, by what the PRM gives",
            "command": "python -m studies.rl.arms train --seed S --root FOLDER, then report --root FOLDER",
            "rows": merged,
            "differences": differences(merged),
        },
    )


def differences(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the differences in points of success on test tasks, paired by task, of each seed."""
    of = {(row["seed"], row["arm"]): row["test_tasks"] for row in rows}
    found = []
    for seed in sorted({row["seed"] for row in rows}):
        for first, second in COMPARED:
            if (seed, first) in of and (seed, second) in of:
                a, b = ([100 * x for x in of[seed, name]] for name in (first, second))
                points = {k: round(v, 1) for k, v in paired_interval(a, b)._asdict().items()}
                found.append({"seed": seed, "arm": first, "minus": second, **points})
    return found


def table(record: Mapping[str, Any]) -> str:
    """Return the record as two tables: one row an arm and seed, and one row a difference and seed."""
    lines = [
        "| seed | arm | iterations | environment steps, the PRM's included | dev | test, one sample | gain in points | greedy | share of the PRM, first and last iteration | turns at the end | alarm |",  # noqa: E501
        "| ---: | --- | ---: | ---: | ---: | ---: | --- | ---: | --- | ---: | --- |",
    ]
    for row in record["rows"]:
        gain, share = row["sample_difference"], row["prm_share"]
        lines.append(
            f"| {row['seed']} | {row['about']} | {row['iterations']} "
            f"| {row['env_steps'] + row['owed_steps']:,} | {row['dev']:.1f} "
            f"| {row['sample_before']['mean']:.1f} → {row['sample_after']['mean']:.1f} "
            f"| {gain['mean']:+.1f} [{gain['low']:+.1f}, {gain['high']:+.1f}] "
            f"| {row['greedy_after']['mean']:.1f} | {f'{share[0]:.2f}, {share[-1]:.2f}' if share else '-'} "
            f"| {row['turns'][1]:.1f} | {'rang' if row['alarm'] else '-'} |"
        )
    lines += ["", "| seed | difference on test tasks, one sample | points |", "| ---: | --- | --- |"]
    lines += [
        f"| {d['seed']} | {ARMS[d['arm']].about} − {ARMS[d['minus']].about} "
        f"| {d['mean']:+.1f} [{d['low']:+.1f}, {d['high']:+.1f}] |"
        for d in record["differences"]
    ]
    return "\n".join(lines)


def main() -> None:
    """Run one part of the study."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["train", "report"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--root", type=Path, nargs="+", default=[Path("runs/quickstart")])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS), metavar="NAME")
    parser.add_argument("--env_steps", type=int, default=36_000)
    parser.add_argument("--output", type=Path, default=RECORD)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if arguments.part == "report":
        report(arguments.root, arguments.output)
        return
    train(arguments.root[0], arguments.seed, arguments.arms, arguments.env_steps)


if __name__ == "__main__":
    main()
