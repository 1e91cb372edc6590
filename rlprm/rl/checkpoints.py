"""Checkpoints that are whole or not there, and the journal beside them.

    <output_dir>/metrics.jsonl                      one line an iteration
    <output_dir>/checkpoints/iteration-000010/      weights, optimiser, random states, state.json

A checkpoint is written under another name and renamed when all of it is on disk. A run that was killed
goes on from the newest; the lines of iterations behind it are dropped, since they will be run again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rlprm.errors import DataError, refuse_other_settings
from rlprm.rl.learner import Learner
from rlprm.runtime.files import read_json, write_atomically, write_json
from rlprm.runtime.renames import current_settings

__all__ = ["Journal", "RunState", "load_newest", "save_checkpoint"]

_FOLDER = "checkpoints"
_STATE = "state.json"


@dataclass
class RunState:
    """What a run has to know to go on, besides weights and optimiser; all else follows from the iteration."""

    iteration: int = 0
    """Iterations that are done."""
    env_steps: int = 0
    tokens: int = 0
    """Tokens the policy sampled."""
    prm: str = ""
    """Folder of the PRM in use."""
    best_iteration: int = -1
    """Iterations that the best policy on dev tasks had seen; -1: none was measured."""
    best_success: float = -1.0
    """What it reached there: the mean of the outcome that is learned from, success or score."""
    alarms: dict[str, str] = field(default_factory=dict)
    """Each sign that was seen, with the iteration it was first seen in."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Of each phase."""


class Journal:
    """The metrics of every iteration, on disk as JSON lines and in memory."""

    def __init__(self, folder: Path, iteration: int, *, writes: bool) -> None:
        """Open it at an iteration; what was noted behind it is dropped.

        Raises:
            DataError: for a line that is not JSON, other than a last one that was cut off.
        """
        self._path, self._writes = folder / "metrics.jsonl", writes
        lines = self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else []
        self.rows: list[dict[str, Any]] = []
        for number, line in enumerate(lines):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                if number < len(lines) - 1:
                    raise DataError(f"{self._path} line {number + 1} is not valid JSON: {error}") from error
                continue
            if row["iteration"] < iteration:
                self.rows.append(row)
        if writes and lines:
            write_atomically(self._path, "".join(json.dumps(row) + "\n" for row in self.rows))

    def write(self, row: dict[str, Any]) -> None:
        """Note an iteration."""
        self.rows.append(row)
        if self._writes:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    def column(self, name: str) -> list[float]:
        """The values of a metric over the iterations that have it."""
        return [float(row[name]) for row in self.rows if name in row]


def save_checkpoint(
    learner: Learner, folder: Path, state: RunState, settings: Mapping[str, Any], *, keep: int
) -> None:
    """Write a checkpoint, then drop the oldest; to be called in every process."""
    final = folder / _FOLDER / f"iteration-{state.iteration:06d}"
    partial = final.with_name(f"{final.name}.partial")
    if learner.processes.is_main:
        for path in (partial, final):
            shutil.rmtree(path, ignore_errors=True)
    learner.processes.wait()
    learner.save_state(partial)
    learner.processes.wait()
    if learner.processes.is_main:
        world = learner.processes.count
        write_json(partial / _STATE, {**asdict(state), "processes": world, "settings": dict(settings)})
        partial.rename(final)
        for old in _whole(folder)[:-keep]:
            shutil.rmtree(old, ignore_errors=True)
    learner.processes.wait()


def load_newest(learner: Learner, folder: Path, settings: Mapping[str, Any]) -> RunState | None:
    """Load the newest whole checkpoint; None where there is none. To be called in every process.

    Raises:
        MismatchError: if it was made with other settings, or by another number of processes.
    """
    found = _whole(folder)
    if not found:
        return None
    state = read_json(found[-1] / _STATE)
    before = {**current_settings("train-rl", state.pop("settings")), "processes": state.pop("processes")}
    now = {**json.loads(json.dumps(dict(settings))), "processes": learner.processes.count}
    refuse_other_settings(f"{found[-1]} was made", before, now)
    learner.load_state(found[-1])
    return RunState(**state)


def _whole(folder: Path) -> list[Path]:
    """Checkpoints in order, without those that were being written when the run was killed."""
    return sorted(
        path
        for path in (folder / _FOLDER).glob("iteration-*")
        if path.suffix != ".partial" and (path / _STATE).exists()
    )
