"""The quickstart's headline figures, their record, and a new run compared with it."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlprm.errors import DataError, MismatchError
from rlprm.evaluation.records import (
    BEST_OF_N,
    GREEDY,
    MAJORITY,
    ORACLE,
    SAMPLE_MEAN,
    SEARCH,
    UNTIL_ACCEPTED,
    EvaluationRecord,
)
from rlprm.runtime.files import read_json, write_json
from rlprm.runtime.record import made, read_record
from rlprm.stages.evaluate_parts.settings import FREE_SCORERS
from studies.protocol.records import digest_of_recipes

log = logging.getLogger(__name__)
RECORD = Path("docs/results/quickstart.json")
POINTS = 6.0
"""How far a headline figure may be from the record: another kind of processor moves figures, too."""
RECIPES = Path("recipes/babyai")
BESIDE = CONTROLS, SEARCHES = ("controls", "searches")
"""Folders of a run with evaluations beside the quickstart's own: what else could explain its figures
(``evaluate_controls_tiny.yaml``), and other searches (``evaluate_searches_tiny.yaml``). A run may lack both.
"""
UNTIL = "until"
"""Entry of a search's figure: cost -> success of sampling until success shows, at as much of the cost. If all
candidates cost less (``beyond_pool``), it is the success of all."""
_RL_CONTROLS = {
    "filtered": "after learning own successes as long as RL",
    "filtered_of_clone": "after the clone learned own successes as long as RL",
}
"""Folders of ``train_rl_filtered_tiny.yaml``, from the policy and from the clone."""
_STAGES = ("pretrain", "sft", "collect", "train_prm", "train_orm", "clone", "evaluate", "train_rl")
COSTS = {"total_tokens": "tokens", "env_steps": "environment steps"}
"""Field of a record and its words, for the costs at which a search is compared."""

Figure = dict[str, Any]
Run = dict[str, Any]


def headline(folder: Path) -> Run:
    """Return the headline figures of a finished quickstart, in %.

    These are one sample, greedy, the oracle and every scorer at the budget at which rules are chosen, all
    beams, the reference at the cost of the main scorer's beams, and one sample before and after RL.

    Raises:
        ArtifactError: if the quickstart is not finished.
    """
    summary = read_json(folder / "summary.json")
    evaluation = read_record(folder / "evaluation")["config"]
    chosen_at = evaluation["chosen_at"]
    rows = [EvaluationRecord(**row) for row in summary["evaluation"]]
    figures = {
        row.name: _figure(row, evaluation)
        for row in sorted(rows, key=lambda row: _place(row, evaluation["main_scorer"]))
        if row.n == chosen_at or row.strategy not in (BEST_OF_N, UNTIL_ACCEPTED, MAJORITY, ORACLE)
    }
    for equal in summary["equal_cost"]:
        if not equal["search"].endswith(f", {evaluation['main_scorer']}"):
            continue
        reference = re.sub(r"\bN\b", "k", equal["reference"]).replace("majority of k", "best of k, majority")
        figures[f"{reference}, at the {COSTS[equal['cost']]} of {equal['search']}"] = {
            "success": round(100 * equal["success_rate"], 2),
            "k": round(equal["n"], 1),
            **({"tokens": round(equal["spent"])} if equal["cost"] == "total_tokens" else {}),
            **({"steps": round(equal["spent"], 1)} if equal["cost"] == "env_steps" else {}),
            "beyond_pool": equal["beyond_pool"],
        }
    for name, part in (("before", "before"), ("after", "after"), ("gain by", "difference")):
        figures[f"one sample, {name} RL"] = _rl_figure(summary["rl"], part)
    beside = {CONTROLS: _controls(folder), SEARCHES: _other_searches(folder / SEARCHES)}
    return {
        "seed": evaluation["seed"],
        "environment": evaluation["environment"],
        "test_tasks": rows[0].tasks,
        "recipes": digest_of_recipes(RECIPES, _STAGES),
        "seconds": summary["seconds"]["total"],
        "seconds_of": {name: summary["seconds"][name] for name in _STAGES if name in summary["seconds"]},
        "made": _made(folder),
        "figures": figures,
        **{part: found for part, found in beside.items() if found},
    }


def _figure(row: EvaluationRecord, evaluation: Mapping[str, Any]) -> Figure:
    acting = evaluation.get("searches", {}).get(row.search, {}).get("policy")
    return {
        "success": round(100 * row.success_rate, 2),
        "low": round(100 * row.ci_low, 2),
        "high": round(100 * row.ci_high, 2),
        "tokens": round(row.total_tokens),
        "steps": round(row.env_steps, 1),
        **({"policy": Path(acting).name} if acting else {}),
    }


def _rl_figure(of_rl: Mapping[str, Any], part: str) -> Figure:
    sample = of_rl[part]["sample"]
    return {
        name: round(100 * sample[key], 2)
        for name, key in (("success", "mean"), ("low", "low"), ("high", "high"))
    }


def _controls(folder: Path) -> dict[str, Figure]:
    """Return what else could explain the figures: other policies and rules, and RL without a reward model."""
    found = _searches(folder / CONTROLS)
    for name, text in _RL_CONTROLS.items():
        if (folder / name / "summary.json").exists():
            of_rl = read_json(folder / name / "summary.json")
            if name == "filtered_of_clone":
                found["one sample of the clone"] = _rl_figure(of_rl, "before")
            found[f"one sample, {text}"] = _rl_figure(of_rl, "after")
    return found


def _other_searches(folder: Path) -> dict[str, Figure]:
    """Return the figures of searches, each with those of sampling until success shows at its costs."""
    found = _searches(folder)
    for equal in read_json(folder / "summary.json").get("equal_cost", ()) if found else ():
        until = found[equal["search"]].setdefault(UNTIL, {})
        success = round(100 * equal["success_rate"], 2)
        until[equal["cost"]] = {"success": success, "beyond_pool": equal["beyond_pool"]}
    return found


def _searches(folder: Path) -> dict[str, Figure]:
    """Return the figures of an evaluation's searches; none if there is no evaluation."""
    if not (folder / "summary.json").exists():
        return {}
    config = read_record(folder)["config"]
    rows = [EvaluationRecord(**row) for row in read_json(folder / "summary.json")["evaluation"]]
    return {row.name: _figure(row, config) for row in rows if row.strategy == SEARCH}


def _made(folder: Path) -> dict[str, Any]:
    """Return where and by which code a run was made, from the record of its evaluation.

    ``commits`` is added if the stages ran at several. A folder of 0.1.0 has no such record: commit and
    changed files are null, the commit at which it is recorded stands apart, and the processor is the one that
    records.
    """
    stages = [read_record(file.parent) for file in sorted(folder.glob("*/stage.json"))]
    commits = sorted({stage["made"]["commit"] for stage in stages if stage.get("made", {}).get("commit")})
    now, run = made(), read_record(folder / "evaluation").get("made")
    if run is None:
        return {**now, "commit": None, "changed_files": None, "recorded_at_commit": now["commit"]}
    return {**run, **({"commits": commits} if len(commits) > 1 else {})}


def record(folder: Path, file: Path = RECORD) -> None:
    """Add a run to the record, in place of the run with its seed and of runs with other recipes."""
    run = headline(folder)
    before = read_json(file)["runs"] if file.exists() else []
    same = [old for old in before if old["recipes"] == run["recipes"]]
    if len(same) < len(before):
        log.warning("%d runs with other recipes leave the record", len(before) - len(same))
    runs = [old for old in same if old["seed"] != run["seed"]] + [run]
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
        MismatchError: if the recorded run has other tasks.
    """
    old = next((old for old in recorded["runs"] if old["seed"] == run["seed"]), None)
    if old is None:
        raise DataError(f"the record has no run with seed {run['seed']}")
    for name in ("environment", "test_tasks"):
        if old[name] != run[name]:
            raise MismatchError(f"the record has {name} {old[name]}, the run {run[name]}: nothing to compare")
    lines, moved = ["| success in % | recorded | now | difference |", "| --- | --- | --- | --- |"], []
    for name in dict.fromkeys([*old["figures"], *run["figures"]]):
        there, here = (side["figures"].get(name, {}).get("success") for side in (old, run))
        if there is None or here is None:
            cells = ["–" if value is None else f"{value:.1f}" for value in (there, here)] + ["missing"]
        else:
            cells = [f"{there:.1f}", f"{here:.1f}", f"{here - there:+.1f}"]
        if there is None or here is None or round(abs(here - there), 6) > points:
            moved.append(name)
        lines.append(f"| {' | '.join([name, *cells])} |")
    processors = [side["made"]["processor"] for side in (old, run)]
    lines += ["", f"Processor: {processors[0]} (recorded), {processors[1]} (now)."]
    if old["recipes"] != run["recipes"]:
        lines.append("The recipes have changed since.")
    return "\n".join(lines), moved


def _place(row: EvaluationRecord, main: str) -> tuple[int, int]:
    """Return where a row stands: bounds, best-of-N, searches; free scorers first, the main one last."""
    order = [SAMPLE_MEAN, GREEDY, ORACLE, MAJORITY, BEST_OF_N, UNTIL_ACCEPTED]
    free = row.scorer in FREE_SCORERS
    kind = order.index(row.strategy) if row.strategy in order else len(order)
    return kind, 0 if free else 2 if row.scorer == main else 1
