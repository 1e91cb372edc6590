"""Results of a search on disk, portion by portion: a killed evaluation goes on with what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlprm.data.failures import has_failed
from rlprm.data.shards import Shards
from rlprm.data.store import from_row, to_row
from rlprm.runtime.parsing.renames import current_settings
from rlprm.search.base import SearchResult
from rlprm.search.record import Node
from rlprm.types import Task

__all__ = ["SearchStore"]

_COSTS = ("sampled_tokens", "policy_tokens", "scorer_tokens", "env_steps")


class SearchStore(Shards):
    """A folder of search results: the columns of a trajectory, its score and what it cost."""

    HOLDS = "results of a search"

    @classmethod
    def current_meta(cls, meta: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return stored settings under the names of this version."""
        return current_settings("evaluate", meta)

    def write(self, wave: int, results: Sequence[SearchResult]) -> None:
        """Store one portion of tasks, atomically."""
        self.write_rows(wave, map(_to_row, results))

    def finished(self, wave: int, tasks: Sequence[Task]) -> list[SearchResult] | None:
        """Read one portion; None if it is missing or must be searched again.

        A portion is searched again if an episode of it failed, if it holds other tasks (another version may
        have divided them otherwise), or if the version that wrote it did not count the tokens that a policy
        reads.

        Raises:
            DataError: if a line is damaged; names shard and line.
        """
        if not self.has(wave):
            return None
        rows = self.read_wave_rows(wave, _from_row)
        results = [row for row in rows if row is not None]
        if len(results) < len(rows) or any(has_failed(result.trajectory) for result in results):
            return None
        same = [result.trajectory.task.id for result in results] == [task.id for task in tasks]
        return results if same else None


def _to_row(result: SearchResult) -> dict[str, Any]:
    costs = {name: getattr(result, name) for name in _COSTS}
    nodes = [node.to_row() for node in result.nodes]
    return {"score": result.score, **costs, "nodes": nodes, **to_row(result.trajectory)}


def _from_row(row: Mapping[str, Any]) -> SearchResult | None:
    if "sampled_tokens" not in row:
        return None
    score = None if row["score"] is None else float(row["score"])
    nodes = tuple(map(Node.from_row, row.get("nodes", ())))
    costs: dict[str, Any] = {name: int(row[name]) for name in _COSTS}
    return SearchResult(from_row(row), score, nodes=nodes, **costs)
