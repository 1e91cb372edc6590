"""Every candidate of an evaluation as JSON lines: its step scores, and what became of it in a search.

    scores/<scorer>.jsonl        one line per trajectory of the pool
    dev-scores/<scorer>.jsonl    one line per trajectory of the dev pool
    searches/<search>.jsonl      one line per candidate of a search with one scorer

docs/method.md lists the columns. The trajectories themselves are in ``pool``, ``dev-pool``, ``beams`` and
``searches``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rlprm.errors import DataError
from rlprm.evaluation.pool import Pool
from rlprm.runtime.files import write_atomically
from rlprm.search.base import SearchResult
from rlprm.search.record import Node
from rlprm.types import StepScores

__all__ = ["ScoredCandidate", "read_scores", "read_search", "write_scores", "write_search"]


class ScoredCandidate(NamedTuple):
    """One trajectory of a pool and the scores that one scorer gave its steps."""

    task: str
    sample: int
    success: bool
    outcome: float
    """The environment's own score in [0, 1]."""
    scores: StepScores | None
    """None if the trajectory could not be scored."""


def write_scores(folder: Path, pool: Pool) -> None:
    """Write one file for each scorer of a pool."""
    for scorer, rows in pool.scores.items():
        candidates = (
            ScoredCandidate(t.task.id, t.sample, t.outcome.success, t.outcome.score, s)
            for row, of_row in zip(pool.trajectories, rows, strict=True)
            for t, s in zip(row, of_row, strict=True)
        )
        _write(folder / f"{scorer}.jsonl", map(_row, candidates))


def read_scores(path: str | Path) -> list[ScoredCandidate]:
    """Read a file that :func:`write_scores` wrote.

    Raises:
        DataError: for a line that is damaged.
    """
    return [_candidate(row) for row in _read(Path(path))]


def write_search(path: Path, results: Sequence[SearchResult]) -> None:
    """Write the candidates of a search, task by task, in the order of their numbers."""
    rows = ({"task": r.trajectory.task.id, **node.to_row()} for r in results for node in r.nodes)
    _write(path, rows)


def read_search(path: str | Path) -> dict[str, list[Node]]:
    """Read a file that :func:`write_search` wrote: task id → its candidates.

    Raises:
        DataError: for a line that is damaged.
    """
    found: dict[str, list[Node]] = {}
    for row in _read(Path(path)):
        found.setdefault(row.pop("task"), []).append(Node.from_row(row))
    return found


def _row(candidate: ScoredCandidate) -> dict[str, Any]:
    row = candidate._asdict()
    scores = row.pop("scores")
    if scores is None:
        return {**row, "initial": None, "scores": None, "states": None, "tokens": 0}
    return {
        **row,
        "initial": scores.initial,
        "scores": list(scores.values),
        "states": list(scores.states),
        "tokens": scores.tokens,
    }


def _candidate(row: Mapping[str, Any]) -> ScoredCandidate:
    scores = None
    if row["scores"] is not None:
        scores = StepScores(row["initial"], tuple(row["scores"]), row["tokens"], tuple(row["states"]))
    return ScoredCandidate(row["task"], row["sample"], row["success"], row["outcome"], scores)


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _read(path: Path) -> list[dict[str, Any]]:
    rows = []
    # Not splitlines: an action may hold a character such as U+2028, which JSON leaves as it is.
    for number, line in enumerate(path.read_text(encoding="utf-8").removesuffix("\n").split("\n"), start=1):
        try:
            rows.append(dict(json.loads(line)))
        except ValueError as error:
            raise DataError(f"{path}, line {number} is damaged: {error}") from error
    return rows
