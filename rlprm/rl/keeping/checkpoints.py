"""Checkpoints, complete or absent, and the journal beside them.

    <output_dir>/metrics.jsonl                      one line an iteration
    <output_dir>/checkpoints/iteration-000010/      weights, optimiser, random states, state.json; under
                                                    max_staleness 1 the next iteration's episodes

A checkpoint is written under another name and renamed once all of its files are on disk. A killed run
resumes from the newest; the journal's lines of later iterations are dropped, since they run again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlprm.data.store import TrajectoryStore
from rlprm.errors import DataError, MismatchError
from rlprm.rl.engine import Engine
from rlprm.rl.state import RunState, changes
from rlprm.runtime.files import read_json, write_atomically, write_json
from rlprm.runtime.parsing.renames import current_settings
from rlprm.runtime.processes import collective
from rlprm.types import Trajectory

__all__ = ["Journal", "has_checkpoint", "load_ahead", "load_newest", "save_checkpoint"]

_FOLDER = "checkpoints"
_STATE = "state.json"
_AHEAD = "rollouts"
_CRITIC = "return without potentials"
"""What a critic's values mean: its weights do not say it."""


class Journal:
    """The metrics of every iteration, on disk as JSON lines and in memory."""

    def __init__(self, folder: Path, iteration: int, *, writes: bool) -> None:
        """Open the journal at an iteration; lines of that iteration and later ones are dropped.

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
        """Append the metrics of an iteration."""
        self.rows.append(row)
        if self._writes:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    def column(self, name: str) -> list[float]:
        """Return a metric over the iterations that have it."""
        return [float(row[name]) for row in self.rows if name in row]


@collective
def save_checkpoint(
    engine: Engine,
    folder: Path,
    state: RunState,
    settings: Mapping[str, Any],
    *,
    keep: int,
    ahead: Sequence[Trajectory] | None = None,
) -> None:
    """Write a checkpoint, then drop the oldest ones.

    Args:
        engine: holds weights, optimiser and random states.
        folder: of the run.
        state: at the checkpoint.
        settings: of the run.
        keep: number of checkpoints that are kept.
        ahead: episodes of the next iteration, which older weights have written already.
    """
    final = folder / _FOLDER / f"iteration-{state.iteration:06d}"
    partial = final.with_name(f"{final.name}.partial")
    if engine.processes.is_main:
        for path in (partial, final):
            shutil.rmtree(path, ignore_errors=True)
    engine.processes.wait()
    engine.save_state(partial)
    engine.processes.wait()
    if engine.processes.is_main:
        if ahead is not None:
            TrajectoryStore.create(partial / _AHEAD, {}).write(0, ahead)
        world = engine.processes.count
        facts = {**asdict(state), "processes": world, "critic_predicts": _CRITIC}
        write_json(partial / _STATE, {**facts, "settings": dict(settings)})
        partial.rename(final)
        for old in _complete(folder)[:-keep]:
            shutil.rmtree(old, ignore_errors=True)
    engine.processes.wait()


@collective
def load_newest(
    engine: Engine, folder: Path, settings: Mapping[str, Any]
) -> tuple[RunState, dict[str, tuple[Any, Any]]] | None:
    """Load the newest complete checkpoint.

    Returns:
        The state, and the settings that have changed since; None if there is no checkpoint.

    Raises:
        MismatchError: if it was made with other settings that its past depends on, or by another number of
            processes.
    """
    checkpoints = _complete(folder)
    if not checkpoints:
        return None
    newest = checkpoints[-1]
    state = read_json(newest / _STATE)
    before = {**current_settings("train-rl", state.pop("settings")), "processes": state.pop("processes")}
    if state.pop("critic_predicts", None) != _CRITIC and before.get("reward") == "progress":
        raise MismatchError(
            f"{newest} was made by an earlier version, whose critic predicted what progress pays; choose "
            "another output_dir"
        )
    now = current_settings("train-rl", json.loads(json.dumps(dict(settings))))
    now["processes"] = engine.processes.count
    changed = changes(f"{newest} was made", before, now)
    engine.load_state(newest)
    return RunState(**state), changed


def load_ahead(folder: Path) -> list[Trajectory] | None:
    """Return the episodes of the next iteration that the newest checkpoint holds; None if there are none."""
    checkpoints = _complete(folder)
    if not checkpoints or not (checkpoints[-1] / _AHEAD).exists():
        return None
    return TrajectoryStore.open(checkpoints[-1] / _AHEAD).read()


def has_checkpoint(folder: Path) -> bool:
    """Whether a run can go on from a checkpoint."""
    return bool(_complete(folder))


def _complete(folder: Path) -> list[Path]:
    """Return the checkpoints in order, without those whose writing was interrupted."""
    return sorted(
        path
        for path in (folder / _FOLDER).glob("iteration-*")
        if path.suffix != ".partial" and (path / _STATE).exists()
    )
