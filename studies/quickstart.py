"""The quickstart's headline figures: their record, and a new run compared with it.

python -m studies.quickstart record runs/quickstart       # adds the run to docs/results/quickstart.json
python -m studies.quickstart compare runs/quickstart      # exit status 1 if a figure moved by over 6 points
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlprm.errors import DataError
from rlprm.evaluation.records import BEST_OF_N, MAJORITY, ORACLE, EvaluationRecord
from rlprm.runtime.files import read_json, write_atomically, write_json
from rlprm.runtime.record import read_record
from studies.protocol.records import made

RECORD = Path("docs/results/quickstart.json")
POINTS = 6.0
"""How far a headline figure may be from the record: another kind of processor moves figures, too."""
_NOT_IN_README = ("_x_policy", "shortest", "random", "before RL", "gain by RL")

Run = dict[str, Any]


def headline(folder: Path) -> Run:
    """Return the headline figures of a finished quickstart, in %.

    These are one sample, greedy, the oracle and every scorer at the budget at which rules are chosen, all
    beams, and one sample before and after RL.

    Raises:
        ArtifactError: if the quickstart is not finished.
    """
    summary = read_json(folder / "summary.json")
    evaluation = read_record(folder / "evaluation")["config"]
    chosen_at = evaluation["chosen_at"]
    rows = [EvaluationRecord(**row) for row in summary["evaluation"]]
    figures = {
        row.name: {
            "success": round(100 * row.success_rate, 2),
            "low": round(100 * row.ci_low, 2),
            "high": round(100 * row.ci_high, 2),
            "tokens": round(row.total_tokens),
        }
        for row in rows
        if row.n == chosen_at or row.strategy not in (BEST_OF_N, MAJORITY, ORACLE)
    }
    for name, part in (("before", "before"), ("after", "after"), ("gain by", "difference")):
        of_rl = summary["rl"][part]["sample"]
        figures[f"one sample, {name} RL"] = {
            "success": round(100 * of_rl["mean"], 2),
            "low": round(100 * of_rl["low"], 2),
            "high": round(100 * of_rl["high"], 2),
        }
    return {
        "seed": evaluation["seed"],
        "environment": evaluation["environment"],
        "test_tasks": rows[0].tasks,
        "seconds": summary["seconds"]["total"],
        "made": made(),
        "figures": figures,
    }


def record(folder: Path, file: Path = RECORD) -> None:
    """Add a run to the record, in place of the run with its seed."""
    run = headline(folder)
    before = read_json(file)["runs"] if file.exists() else []
    runs = [old for old in before if old["seed"] != run["seed"]] + [run]
    write_json(
        file,
        {
            "what": "headline figures of bash scripts/quickstart.sh, success in % of test tasks",
            "command": "bash scripts/quickstart.sh --seed S, then python -m studies.quickstart record FOLDER",
            "runs": sorted(runs, key=lambda run: int(run["seed"])),
        },
    )


def compare(run: Run, recorded: Mapping[str, Any], points: float = POINTS) -> tuple[str, list[str]]:
    """Compare a run with the recorded run of its seed.

    Returns:
        A table, and the names of figures that moved by more than ``points`` or are on one side only.

    Raises:
        DataError: if no run of the seed is recorded.
    """
    old = next((old for old in recorded["runs"] if old["seed"] == run["seed"]), None)
    if old is None:
        raise DataError(f"the record has no run with seed {run['seed']}")
    lines, moved = ["| success in % | recorded | now | difference |", "| --- | --- | --- | --- |"], []
    for name in dict.fromkeys([*old["figures"], *run["figures"]]):
        there, here = (side["figures"].get(name, {}).get("success") for side in (old, run))
        if there is None or here is None:
            cells = ["–" if value is None else f"{value:.1f}" for value in (there, here)] + ["missing"]
        else:
            cells = [f"{there:.1f}", f"{here:.1f}", f"{here - there:+.1f}"]
        if there is None or here is None or abs(here - there) > points:
            moved.append(name)
        lines.append(f"| {' | '.join([name, *cells])} |")
    processors = [side["made"]["processor"] for side in (old, run)]
    lines += ["", f"Processor: {processors[0]} (recorded), {processors[1]} (now)."]
    return "\n".join(lines), moved


def table(recorded: Mapping[str, Any], *, short: bool = False) -> str:
    """Return the record as a Markdown table, with every seed; the short one is README's."""
    runs: Sequence[Run] = recorded["runs"]
    seeds = ", ".join(str(run["seed"]) for run in runs)
    tasks, environment = runs[0]["test_tasks"], runs[0]["environment"]
    processors = "; ".join(dict.fromkeys(run["made"]["processor"] for run in runs))
    minutes = sum(run["seconds"] for run in runs) / len(runs) / 60
    single = len(runs) == 1
    number = f"one run (seed {seeds})" if single else f"{len(runs)} seeds ({seeds})"
    interval = " [95 % interval over tasks]" if single else ", mean (each seed)"
    lines = [
        f"{environment}, {tasks} test tasks, {number}, {minutes:.0f} minutes each on {processors}.",
        "",
        f"| | success in %{interval} | tokens per task |",
        "| --- | --- | --- |",
    ]
    for name in runs[0]["figures"]:
        if short and any(part in name for part in _NOT_IN_README):
            continue
        of_runs = [run["figures"][name] for run in runs]
        rates = [figure["success"] for figure in of_runs]
        tokens = [figure["tokens"] for figure in of_runs if "tokens" in figure]
        sign = "+" if name.startswith("one sample, gain") else ""
        if single:
            shown = f"{rates[0]:{sign}.1f} [{of_runs[0]['low']:{sign}.0f}, {of_runs[0]['high']:{sign}.0f}]"
        else:
            each = ", ".join(f"{rate:{sign}.1f}" for rate in rates)
            shown = f"{sum(rates) / len(rates):{sign}.1f} ({each})"
        cost = f"{sum(tokens) / len(tokens):,.0f}" if tokens else ""
        lines.append(f"| {name} | {shown} | {cost} |")
    return "\n".join(lines)


def main() -> None:
    """Record a run, or compare a run with the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["record", "compare"])
    parser.add_argument("folder", type=Path, help="of a finished quickstart")
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--points", type=float, default=POINTS)
    parser.add_argument("--table", type=Path, help="file that the comparison is written to")
    arguments = parser.parse_args()
    if arguments.part == "record":
        record(arguments.folder, arguments.record)
        return
    text, moved = compare(headline(arguments.folder), read_json(arguments.record), arguments.points)
    print(text)
    if arguments.table:
        write_atomically(arguments.table, text + "\n")
    if moved:
        sys.exit(f"moved by more than {arguments.points:g} points, or missing: {'; '.join(moved)}")


if __name__ == "__main__":
    main()
