"""Runs that a test writes down: what stages leave in their folders, with text that would be markup."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlprm.data.store import TrajectoryStore
from rlprm.evaluation.candidate_files import write_scores
from rlprm.evaluation.pool import Pool
from rlprm.evaluation.search_store import SearchStore
from rlprm.search.base import SearchResult
from rlprm.search.record import Node
from rlprm.types import StepScores, StopReason, Trajectory
from tests.toys.trajectories import of_words

HOSTILE = "</script><img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


def record(folder: Path, stage: str, config: dict[str, Any] | None = None, **results: Any) -> None:
    """Write what a finished stage leaves."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {
        "commit": "0123456789abcdef",
        "changed_files": False,
        "rlprm": "0.0",
        "processor": "toy",
        "threads": 1,
    }
    found = {
        "stage": stage,
        "seconds": 1.5,
        "made": made,
        "results": results,
        "config": config or {"seed": 0},
    }
    (folder / "stage.json").write_text(json.dumps(found))


def episodes(tasks: int = 3, samples: int = 2) -> list[list[Trajectory]]:
    """Return episodes of some tasks; the last sample of every other task succeeds."""
    said = ["right", f"say {HOSTILE}", "stop"]
    ends = (StopReason.ROUND_LIMIT, *[StopReason.DECLARED] * (samples - 1))
    return [
        [
            of_words(
                said, task % 2 == 0 and sample == samples - 1, task=f"task-{task}", sample=sample, stop=stop
            )
            for sample, stop in enumerate(ends)
        ]
        for task in range(tasks)
    ]


def evaluation(folder: Path, rate: float = 0.5) -> Path:
    """Write an evaluation with a pool, two scorers that disagree, and a beam."""
    rows = episodes()
    pool = TrajectoryStore.create(folder / "pool", {})
    pool.write(0, [t for row in rows for t in row])
    scores = {
        "prm": [[StepScores(0.5, (0.1, 0.2, 0.9 * t.sample)) for t in row] for row in rows],
        "other": [[StepScores(0.5, (0.1, 0.2, 0.5 - t.sample)) for t in row] for row in rows],
    }
    pool_of = Pool(tuple(map(tuple, rows)), {name: tuple(map(tuple, of)) for name, of in scores.items()})
    write_scores(folder / "scores", pool_of)
    (first,) = rows[0][:1]
    nodes = (
        Node(0, None, 1, 1, ("right",), (0.3,), 0.3, kept=True),
        Node(
            1, 0, 2, 2, ("stop",), (0.8,), 0.8, kept=True, chosen=True, stop=StopReason.DECLARED, success=True
        ),
        Node(2, 0, 2, 2, ("left",), (0.1,), 0.1),
    )
    SearchStore.create(folder / "beams" / "2x2-prm", {}).write(
        0, [SearchResult(first, 0.8, 5, 6, 7, 8, nodes)]
    )
    (folder / "summary.json").write_text(json.dumps(summary(rate)))
    record(folder, "evaluate", {"seed": 0, "num_tasks": 3, "temperature": 1.0})
    return folder


def summary(rate: float) -> dict[str, Any]:
    """Return the summary of an evaluation of two budgets."""
    row = {"scorer": "prm", "aggregation": "last", "m": 1, "end": "declared", "ci_low": 0.1, "ci_high": 0.9}
    costs = {
        "mean_score": rate,
        "policy_tokens": 10.0,
        "sampled_tokens": 3.0,
        "prm_tokens": 5.0,
        "env_steps": 4.0,
    }
    more = {"tasks": 3, "failed": 0, "search": None, "episodes": None}
    one = {**row, **costs, **more, "strategy": "sample_mean", "scorer": None, "aggregation": None, "n": 1}
    best = [{**row, **costs, **more, "strategy": "best_of_n", "n": n, "success_rate": rate} for n in (1, 2)]
    bins = [{"low": 0.0, "high": 1.0, "mean_value": 0.4, "success_rate": 0.5, "size": 6}]
    quality = {
        "scorer": "prm",
        "by_position": [{"position": 0.5, "auc": 0.5}, {"position": 1.0, "auc": 0.52}],
        "calibration": {"expected_error": 0.1, "bins": bins},
    }
    return {
        "evaluation": [{**one, "success_rate": 0.02}, *best],
        "aggregation": {"prm": {"aggregation": "min"}, "other": {"aggregation": "last"}},
        "task_kind": {"kind": "guidance", "gap_closed": 0.9, "n": 2},
        "quality": {"prm": quality},
        "paired": [{"a": HOSTILE, "b": "one sample", "difference": 0.1, "ci_low": 0.0, "ci_high": 0.2}],
        "seconds": {"pool": 1.0},
    }


def rl(folder: Path, tasks: dict[str, float] | None = None) -> Path:
    """Write a run of agent RL of three iterations that kept its episodes."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        {
            "iteration": i,
            "rollout/success": 0.1 * i,
            "rollout/score": 0.1 * i,
            "rollout/turns": 3.0,
            "ppo/entropy": 1 - i,
        }
        for i in range(3)
    ]
    (folder / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8"
    )
    store = TrajectoryStore.create(folder / "rollouts", {})
    for iteration in range(3):
        store.write(iteration, [t for row in episodes(tasks=1) for t in row])
    interval = {"mean": 0.25, "low": 0.2, "high": 0.3}
    measured = {when: {"sample": interval, "greedy": interval} for when in ("before", "after", "difference")}
    (folder / "summary.json").write_text(
        json.dumps({**measured, "alarm": ["turns rose at iteration 2"]}), encoding="utf-8"
    )
    (folder / "after.json").write_text(
        json.dumps({"sample": tasks or {"a": 1.0, "b": 0.0}}), encoding="utf-8"
    )
    record(folder, "train-rl", {"seed": 0, "learning_rate": 1e-4})
    return folder
