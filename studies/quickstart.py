"""The quickstart's headline figures: their record, and a new run compared with it.

python -m studies.quickstart record runs/quickstart       # adds the run to docs/results/quickstart.json
python -m studies.quickstart compare runs/quickstart      # exit status 1 if a figure moved by over 6 points
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Mapping, Sequence
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
from rlprm.runtime.files import read_json, write_atomically, write_json
from rlprm.runtime.record import made, read_record
from rlprm.stages.evaluate_parts.settings import FREE_SCORERS
from studies.protocol.records import digest_of_recipes

log = logging.getLogger(__name__)
RECORD = Path("docs/results/quickstart.json")
POINTS = 6.0
"""How far a headline figure may be from the record: another kind of processor moves figures, too."""
RECIPES = Path("recipes/babyai")
CONTROLS = "controls"
"""Folder of a run with what else could explain its figures; a run may lack it."""
_STAGES = ("pretrain", "sft", "collect", "train_prm", "train_orm", "clone", "evaluate", "train_rl")
_NOT_IN_README = ("_x_policy", "shortest")
_COSTS = {"env_steps": "environment steps", "total_tokens": "tokens"}
_ENVIRONMENTS = {"babyai": "BabyAI"}
_NAMES = {"agentprm": "AgentPRM", "orm": "ORM", "clone": "a clone of the successes"}

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
        figures[f"{reference}, at the {_COSTS[equal['cost']]} of {equal['search']}"] = {
            "success": round(100 * equal["success_rate"], 2),
            "k": round(equal["n"], 1),
            **({"tokens": round(equal["spent"])} if equal["cost"] == "total_tokens" else {}),
            **({"steps": round(equal["spent"], 1)} if equal["cost"] == "env_steps" else {}),
            "beyond_pool": equal["beyond_pool"],
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
        "recipes": digest_of_recipes(RECIPES, _STAGES),
        "seconds": summary["seconds"]["total"],
        "seconds_of": {name: summary["seconds"][name] for name in _STAGES if name in summary["seconds"]},
        "made": _made(folder),
        "figures": figures,
        **(
            {"controls": _controls(folder / CONTROLS)}
            if (folder / CONTROLS / "summary.json").exists()
            else {}
        ),
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


def _controls(folder: Path) -> dict[str, Figure]:
    """Return the searches of ``evaluate_controls_tiny.yaml``, which the quickstart itself does not run."""
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


def table(recorded: Mapping[str, Any]) -> str:
    """Return all figures of the record as a Markdown table, with every seed.

    Raises:
        MismatchError: for runs with other recipes or figures.
    """
    runs = _same(recorded)
    interval = " [95 % interval over tasks]" if len(runs) == 1 else ", mean (each seed)"
    lines = [
        _about(runs),
        "",
        f"| | success in %{interval} | tokens per task | environment steps per task |",
        "| --- | --- | --- | --- |",
    ]
    rows = [("figures", name, "") for name in runs[0]["figures"]]
    rows += [(CONTROLS, name, "control: ") for name in runs[0].get(CONTROLS, {})]
    for part, name, prefix in rows:
        of_runs = [run[part][name] for run in runs]
        shown = _rate(of_runs, "+" if name.startswith("one sample, gain") else "")
        cells = [f"{prefix}{name}{_k(of_runs)}", shown, _mean(of_runs, "tokens"), _mean(of_runs, "steps", 1)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def short_table(recorded: Mapping[str, Any]) -> str:
    """Return README's table: scorers by best-of-N and beams, with sentences for what has no scorer.

    Raises:
        MismatchError: for runs with other recipes or figures.
    """
    runs = _same(recorded)
    figures = {name: [run["figures"][name] for run in runs] for name in runs[0]["figures"]}
    searches = list(dict.fromkeys(match[1] for name in figures if (match := _SCORED.fullmatch(name))))
    scorers = list(dict.fromkeys(match[2] for name in figures if (match := _SCORED.fullmatch(name))))
    lines = [
        _about(runs) + " " + _bounds(figures),
        "",
        "| chosen by | " + " | ".join(f"{search} | tokens, steps" for search in searches) + " |",
        "| --- |" + " --- | --- |" * len(searches),
    ]
    for scorer in scorers:
        if any(part in scorer for part in _NOT_IN_README):
            continue
        of_scorer = [figures.get(f"{search}, {scorer}") for search in searches]
        cells = [cell for of in of_scorer for cell in ((_rate(of), _costs(of)) if of else ("–", "–"))]
        lines.append(f"| {' | '.join([_NAMES.get(scorer, f'`{scorer}`'), *cells])} |")
    sentences = [*_equal_cost(figures), *_by_other_policies(figures), *_of_rl(figures)]
    return "\n".join([*lines, "", " ".join(sentences)])


def seconds_table(recorded: Mapping[str, Any]) -> str:
    """Return the seconds of each stage as a Markdown table.

    Raises:
        MismatchError: for runs with other recipes or figures.
    """
    runs = _same(recorded)
    lines = ["| stage | seconds, mean (each seed) |", "| --- | --- |"]
    rows = [(name, [run["seconds_of"][name] for run in runs]) for name in runs[0].get("seconds_of", {})]
    for name, seconds in [*rows, ("all", [run["seconds"] for run in runs])]:
        each = f" ({', '.join(f'{of_run:.0f}' for of_run in seconds)})" if len(runs) > 1 else ""
        lines.append(f"| `{name}` | {sum(seconds) / len(seconds):.0f}{each} |")
    return "\n".join(lines)


_AT_COST = re.compile(r"(.+), at the ((?:environment steps|tokens) of .+)")
"""Name of a figure: the reference of a search at the search's cost."""
_UNTIL = re.compile(r"until (\w+), at most k")
_SCORED = re.compile(r"(best of \d+|beam [^,]*|step_\w+), (\w+)")
"""Name of a figure: search and scorer."""


def _place(row: EvaluationRecord, main: str) -> tuple[int, int]:
    """Return where a row stands: bounds, best-of-N, searches; free scorers first, the main one last."""
    order = [SAMPLE_MEAN, GREEDY, ORACLE, MAJORITY, BEST_OF_N, UNTIL_ACCEPTED]
    free = row.scorer in FREE_SCORERS
    kind = order.index(row.strategy) if row.strategy in order else len(order)
    return kind, 0 if free else 2 if row.scorer == main else 1


def _same(recorded: Mapping[str, Any]) -> Sequence[Run]:
    runs: Sequence[Run] = recorded["runs"]
    for run in runs:
        for name, before, now in (
            ("recipes", runs[0]["recipes"], run["recipes"]),
            ("figures", sorted(runs[0]["figures"]), sorted(run["figures"])),
            (CONTROLS, sorted(runs[0].get(CONTROLS, {})), sorted(run.get(CONTROLS, {}))),
        ):
            if before != now:
                raise MismatchError(
                    f"seeds {runs[0]['seed']} and {run['seed']} have different {name}; record them again"
                )
    return runs


def _about(runs: Sequence[Run]) -> str:
    processors = "; ".join(dict.fromkeys(run["made"]["processor"] for run in runs))
    minutes = sum(run["seconds"] for run in runs) / len(runs) / 60
    seeds = ", ".join(str(run["seed"]) for run in runs)
    single, name = len(runs) == 1, runs[0]["environment"]
    number = f"one run (seed {seeds})" if single else f"{len(runs)} seeds ({seeds})"
    shown = "Success in %, 95 % intervals over tasks." if single else "Success in %, mean (each seed)."
    return (
        f"{_ENVIRONMENTS.get(name, name)}, {runs[0]['test_tasks']} test tasks, {number}, "
        f"{minutes:.0f} minutes{'' if single else ' each'} on {processors}. {shown}"
    )


def _bounds(figures: Mapping[str, Sequence[Figure]]) -> str:
    named = {name: name for name in ("one sample", "greedy") if name in figures}
    named |= {name: f"an oracle, {name[8:-1]}" for name in figures if name.startswith("oracle (")}
    shown = [f"{text} {_rate(figures[name])}" for name, text in named.items()]
    return f"For comparison: {'; '.join(shown)}." if shown else ""


def _equal_cost(figures: Mapping[str, Sequence[Figure]]) -> list[str]:
    found = []
    for name, of_runs in figures.items():
        if not (match := _AT_COST.fullmatch(name)):
            continue
        reference, cost = match.groups()
        beyond = ", which costs less" if any(figure["beyond_pool"] for figure in of_runs) else ""
        ks = sum(figure["k"] for figure in of_runs) / len(of_runs)
        if until := _UNTIL.fullmatch(reference):
            shown = f"one sample after another until `{until[1]}` shows success, at most {ks:.1f},"
        else:
            shown = f"best of {ks:.1f} by `{reference.rpartition(', ')[2]}`"
        found.append(f"At the {_titled(cost)}: {shown} {_rate(of_runs)}{beyond}.")
    return found


def _by_other_policies(figures: Mapping[str, Sequence[Figure]]) -> list[str]:
    """Return a sentence for each search in which another policy acted."""
    return [
        f"`{name.partition(', ')[0]}`, in which the {of_runs[0]['policy']} acts: {_rate(of_runs)}, "
        f"{_mean(of_runs, 'tokens')} tokens, {_mean(of_runs, 'steps')} steps."
        for name, of_runs in figures.items()
        if "policy" in of_runs[0]
    ]


def _of_rl(figures: Mapping[str, Sequence[Figure]]) -> list[str]:
    of_rl = [figures.get(f"one sample, {part} RL") for part in ("before", "after", "gain by")]
    if not all(of_rl):
        return []
    before, after, gain = (figure or [] for figure in of_rl)
    return [f"Agent RL, one sample on all its test tasks: {_rate(before)} before, {_rate(after)} after, "
            f"{_rate(gain, '+')} gained."]  # fmt: skip


def _rate(of_runs: Sequence[Figure], sign: str = "") -> str:
    rates = [figure["success"] for figure in of_runs]
    if len(of_runs) > 1:
        each = ", ".join(f"{rate:{sign}.1f}" for rate in rates)
        return f"{sum(rates) / len(rates):{sign}.1f} ({each})"
    bounds = (
        f" [{of_runs[0]['low']:{sign}.0f}, {of_runs[0]['high']:{sign}.0f}]" if "low" in of_runs[0] else ""
    )
    return f"{rates[0]:{sign}.1f}{bounds}"


def _mean(of_runs: Sequence[Figure], cost: str, digits: int = 0) -> str:
    costs = [figure[cost] for figure in of_runs if cost in figure]
    return f"{sum(costs) / len(costs):,.{digits}f}" if costs else ""


def _costs(of_runs: Sequence[Figure]) -> str:
    return ", ".join(filter(None, (_mean(of_runs, "tokens"), _mean(of_runs, "steps"))))


def _k(of_runs: Sequence[Figure]) -> str:
    ks = [f"{figure['k']:.1f}" for figure in of_runs if "k" in figure]
    return f" (k = {', '.join(ks)})" if ks else ""


def _titled(name: str) -> str:
    """Return a name with the scorers' proper names."""
    return re.sub(r"\b(agentprm|orm)\b", lambda match: _NAMES[match[1]], name).replace(", ", " by ")


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
