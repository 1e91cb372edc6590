"""From a unit's measurements to its record: trainings averaged, rules chosen on dev tasks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from rlprm.evaluation.bon import until_accepted
from rlprm.evaluation.equal_cost import COSTS
from rlprm.evaluation.pool import Pool
from rlprm.runtime.record import Stopwatch, has_record, read_record
from rlprm.scorers.base import Scorer
from studies.protocol import records
from studies.protocol.arms import REFERENCE, TRANSCRIPT, Search
from studies.protocol.measure import (
    BEAM,
    Ground,
    N,
    Row,
    at_equal_cost,
    free_rows,
    free_scorers,
    measured,
    searched,
)
from studies.protocol.unit import (
    Unit,
    cost_of_training,
    digest_of_recipes,
    make_policy,
    make_rollouts,
    prm_config,
    train,
)

_OF_ONE_UNIT = frozenset(
    {
        "seed", "output_dir", "model", "trajectories", "label_file", "demonstrations", "root",
        "base", "data", "revision", "label_file_meta",
    }
)  # fmt: skip
"""Settings, and what else identifies a stage's run, that differ between units of one group."""

_STAGES = (
    "pretrained", "policy", "rollouts", "dev-pool", "test-pool", "action-probe", "estimates",
)  # fmt: skip
_OWN_TASKS = ("dev-pool", "test-pool")
"""Stages whose first task is the unit's own."""

_Maker = tuple[str, Callable[[], Scorer]]
"""Name of a file of measurements, and what makes the scorer."""


def record_of(unit: Unit, until: float | None = None) -> records.Record:
    """Make, train and measure everything of a unit; return its record.

    Args:
        unit: an environment, seed and group.
        until: a time (``time.time``) from which on no reward model is begun. What is missing then is named in
            the record's ``left``, in the order in which it will be made.
    """
    watch = Stopwatch()
    with watch.time("policy"):
        make_policy(unit)
    with watch.time("rollouts"):
        make_rollouts(unit)
    with watch.time("pools and actions"):
        ground = Ground.of(unit)
    steps = [(name, k) for k in range(unit.members.trainings) for name in unit.arms]
    done = 0
    for name, k in tqdm(steps, desc=f"{unit.name}, reward models", unit="model"):
        if _is_over(until):
            break
        with watch.time("training"):
            train(unit, name, k)
        if _is_over(until):
            break
        with watch.time("measuring"):
            _measured(ground, name, k)
        done += 1
    with watch.time("measuring"):
        rows = _rows(ground, steps[:done])
    tasks = sorted(ground.test.task_ids)
    goal = unit.environment.goal
    task_of = {candidates[0].task.id: candidates[0].task for candidates in ground.test.trajectories}
    return {
        "what": "one unit of the protocol, see docs/protocol.md",
        "command": f"python -m studies.protocol.run --environment {unit.environment.name} "
        f"--groups {unit.group} --seeds {unit.seed}",
        "environment": unit.environment.name,
        "kind": unit.environment.kind,
        "endpoint": unit.environment.endpoint,
        "group": unit.group,
        "seed": unit.seed,
        "scale": unit.scale,
        "made": {**records.made(), **_sizes(unit)},
        "seconds": {name: round(seconds, 1) for name, seconds in watch.seconds.items()},
        "recipes": digest_of_recipes(unit),
        "settings": _settings(unit),
        "tasks": tasks,
        "goals": None if goal is None else [goal(task_of[task]) for task in tasks],
        "rollouts": _of_stage(unit.made / "rollouts"),
        "estimates": _of_stage(unit.made / "estimates") if has_record(unit.made / "estimates") else None,
        "arms": {
            name: {
                "about": arm.about,
                "settings": dict(arm.settings),
                "training": [cost_of_training(unit, name, k) for other, k in steps[:done] if other == name],
            }
            for name, arm in unit.arms.items()
            if (name, 0) in steps[:done]
        },
        **rows,
        **({"left": [f"{name}-{k}" for name, k in steps[done:]]} if done < len(steps) else {}),
    }


def _is_over(until: float | None) -> bool:
    return until is not None and time.time() > until


def _measured(ground: Ground, name: str, training: int) -> dict[str, Any]:
    """Measure a reward model; what was measured is kept."""
    # The first training chooses the rule of beams, which saves the others three beams on dev tasks.
    return measured(
        ground, f"{name}-{training}", lambda: train(ground.unit, name, training), chooses=training == 0
    )


def _rows(ground: Ground, steps: Sequence[tuple[str, int]]) -> dict[str, Any]:
    unit = ground.unit
    makers: dict[str, list[_Maker]] = {}
    for scorer in free_scorers(unit):
        makers[scorer.name] = [(scorer.name, lambda scorer=scorer: scorer)]  # type: ignore[misc]
    for name, k in steps:
        makers.setdefault(name, []).append(
            (f"{name}-{k}", lambda name=name, k=k: train(unit, name, k))  # type: ignore[misc]
        )
    rows: dict[str, dict[str, Row]] = {"free": free_rows(ground), "best_of_n": {}, "beam": {}}
    quality: dict[str, Any] = {}
    for name, of_name in tqdm(makers.items(), desc=f"{unit.name}, scorers", unit="scorer"):
        every = [measured(ground, file, make, chooses=k == 0) for k, (file, make) in enumerate(of_name)]
        rule, on_dev = _chosen([found["best_of_n"] for found in every])
        curves = [found["best_of_n"][rule]["test"] for found in every]
        at_n = [next(row for row in curve if row["n"] == N) for curve in curves]
        rows["best_of_n"][name] = {
            **_averaged(at_n),
            "dev": on_dev,
            "curve": {
                str(curve[i]["n"]): _mean([_mean(c[i]["successes"]) for c in curves])
                for curve in curves[:1]
                for i in range(len(curve))
            },
        }
        quality[name] = {part: [found[part] for found in every] for part in ("auc", "auc_running", "actions")}
        if not every[0]["beam"]:
            continue
        rule, on_dev = _chosen([every[0]["beam"]])
        settings = {**BEAM, "aggregation": rule}
        beams = [searched(ground, f"{file}-beam", make, "beam", settings) for file, make in of_name]
        rows["beam"][name] = {**_averaged(beams), "dev": on_dev}
    guided = REFERENCE in rows["beam"]
    rows["search"] = _searches(ground, makers, rows["beam"][REFERENCE]) if guided else {}
    rows["equal_cost"] = _equal(ground.test, unit, rows)
    return {**rows, "quality": quality}


def _searches(ground: Ground, makers: Mapping[str, Sequence[_Maker]], beam: Row) -> dict[str, Row]:
    """Run the group's searches; those with a budget may take as many steps as the reference's beam took."""

    def measure(name: str, wanted: Search) -> Row:
        settings = search_settings(wanted, beam)
        scored_by = makers.get(TRANSCRIPT if wanted.by_transcript else REFERENCE, [])
        acting = _acting(ground.unit, wanted)
        rows = [
            searched(ground, f"{file}-{name}{suffix}", make, wanted.strategy, settings, acts)
            for file, make in scored_by
            for suffix, acts in acting.items()
        ]
        return {"about": wanted.about, **_averaged(rows)} if rows else {}

    found = {name: measure(name, wanted) for name, wanted in ground.unit.members.searches.items()}
    return {name: row for name, row in found.items() if row}


def _acting(unit: Unit, wanted: Search) -> dict[str, str | None]:
    """Return end of a file's name → folder of the model that acts; None for the unit's policy."""
    if wanted.acts is None:
        return {"": None}
    trainings = range(unit.members.trainings)
    return {f"-{k}": prm_config(unit, wanted.acts, k).output_dir for k in trainings}


def search_settings(wanted: Search, beam: Row) -> dict[str, Any]:
    """Return the settings of a search: the rule of the reference's beam, and its steps if these are equal."""
    budget = {"budget": max(1, round(beam["costs"]["env_steps"]))} if wanted.at_equal_steps else {}
    return {"aggregation": beam["aggregation"], **wanted.settings, **budget}


def _equal(test: Pool, unit: Unit, rows: Mapping[str, Mapping[str, Row]]) -> dict[str, Row]:
    """Measure sampling until the transcript shows success, at equal tokens and at equal steps."""
    reader = next((s for s in free_scorers(unit) if s.name == TRANSCRIPT), None)
    if reader is None or REFERENCE not in rows["beam"]:
        return {}
    rule = rows["best_of_n"][TRANSCRIPT]["aggregation"]
    curve = until_accepted(test.scored(reader), reader.name, rule, range(1, test.n + 1))
    searches = {f"beam {REFERENCE}": rows["beam"][REFERENCE], **rows["search"]}
    return {
        f"{name}, {cost}": at_equal_cost(curve, cost=cost, spent=found["costs"][cost])
        for name, found in searches.items()
        for cost in COSTS
    }


def _chosen(every: Sequence[Mapping[str, Any]]) -> tuple[str, dict[str, float]]:
    """Return the rule with the highest success on dev tasks, trainings averaged; the first of equals."""
    rates = {rule: _mean([found[rule]["dev"] for found in every]) for rule in every[0]}
    return max(rates, key=lambda rule: round(rates[rule], 9)), rates


def _averaged(rows: Sequence[Row]) -> Row:
    """Average rows of several trainings task by task; ``trainings`` keeps the success rate of each."""
    costs = {name: _mean([row["costs"][name] for row in rows]) for name in rows[0]["costs"]}
    return {
        **rows[0],
        "costs": {name: round(cost, 2) for name, cost in costs.items()},
        "mean_score": round(_mean([row["mean_score"] for row in rows]), 6),
        "failed": sum(row["failed"] for row in rows),
        "trainings": [round(_mean(row["successes"]), 6) for row in rows],
        "successes": [
            round(_mean(of_task), 6) for of_task in zip(*(row["successes"] for row in rows), strict=True)
        ],
    }


def _settings(unit: Unit) -> dict[str, Any]:
    """Return the settings that the unit's stages ran with, from their records."""
    folders = {
        **{name: unit.made / name for name in _STAGES},
        **{f"arm {name}": unit.made / "models" / f"{name}-0" for name in unit.arms},
    }
    return {
        stage: {
            name: value
            for name, value in read_record(folder)["config"].items()
            if name not in _OF_ONE_UNIT and not (name == "first_task" and stage in _OWN_TASKS)
        }
        for stage, folder in folders.items()
        if has_record(folder)
    }


def _sizes(unit: Unit) -> dict[str, Any]:
    """Return the numbers of parameters; a forward pass costs about two FLOPs for each and token."""
    policy = read_record(unit.made / "policy")["results"]
    return {"policy_parameters": policy.get("parameters")}


def _of_stage(folder: Path) -> dict[str, Any]:
    record = read_record(folder)
    return {"seconds": record["seconds"], **record["results"]}


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)
