"""What a stage has spent at an endpoint, over all the runs that resume it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from rlprm.policies.openai.answer import Usage
from rlprm.runtime.files import read_json, write_json

if TYPE_CHECKING:
    from rlprm.policies.base import Policy
    from rlprm.runtime.processes import Processes

__all__ = ["Costs", "recording_costs"]

_FILES = "usage-*.json"
"""Of a stage's folder; one for each process."""
_COUNTS = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens", "requests_without_usage")
_EVERY = 5.0
"""Seconds between two writings of the file."""
_MOST_MODELS = 16


class Costs:
    """Counts of requests that were answered, kept in a file for each process.

    A request that failed is not counted: the endpoint does not say what it cost. The counts of the last
    seconds of a process that was killed are lost.
    """

    def __init__(self) -> None:
        self.counts = dict.fromkeys(_COUNTS, 0)
        self.models: list[str] = []
        self._path: Path | None = None
        self._written = 0.0
        self._lock = Lock()

    def keep_in(self, folder: str | Path, process: int = 0) -> None:
        """Go on with the counts of earlier runs, and write them to a file from now on.

        Args:
            folder: of the stage's results.
            process: number of this process.
        """
        path = Path(folder) / _FILES.replace("*", str(process))
        if path.exists():
            found = read_json(path)
            self.counts = {name: self.counts[name] + int(found.get(name, 0)) for name in _COUNTS}
            self.models = sorted({*self.models, *found.get("models", [])})
        self._path = path

    def add(self, usage: Usage | None, model: str) -> None:
        """Count a request.

        Args:
            usage: its tokens; None if the endpoint did not say.
            model: that answered; empty if the endpoint did not say.
        """
        with self._lock:
            self.counts["requests"] += 1
            if usage is None:
                self.counts["requests_without_usage"] += 1
            else:
                self.counts["prompt_tokens"] += usage.prompt
                self.counts["cached_tokens"] += usage.cached
                self.counts["completion_tokens"] += usage.completion
            if model and model not in self.models and len(self.models) < _MOST_MODELS:
                self.models.append(model)
            if self._path is not None and time.monotonic() - self._written > _EVERY:
                self._write(self._path)

    def close(self) -> None:
        """Write the counts."""
        with self._lock:
            if self._path is not None:
                self._write(self._path)

    def _write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, self._row())
        self._written = time.monotonic()

    def _row(self) -> dict[str, Any]:
        return {**self.counts, "models": sorted(self.models)}


@contextmanager
def recording_costs(
    policy: Policy, folder: str | Path, processes: Processes, results: dict[str, Any]
) -> Iterator[None]:
    """Put into a stage's results what its body spends at an endpoint; nothing for a policy of another kind.

    Every process of the stage must come here.

    Args:
        policy: acts in the body.
        folder: of the results.
        processes: of the stage.
        results: of the stage; the counts of all processes and runs are put under ``endpoint``.
    """
    costs = getattr(policy, "costs", None)
    if not isinstance(costs, Costs):
        yield
        return
    costs.keep_in(folder, processes.rank)
    try:
        yield
    finally:
        costs.close()
    processes.wait()
    results["endpoint"] = _total(folder)


def _total(folder: str | Path) -> dict[str, Any]:
    """Return the counts of all processes of a stage, and the names of the models that answered."""
    rows = [read_json(path) for path in sorted(Path(folder).glob(_FILES))]
    models = sorted({model for row in rows for model in row["models"]})
    return {**{name: sum(row[name] for row in rows) for name in _COUNTS}, "models": models}
