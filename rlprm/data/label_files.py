"""Step labels on disk: one trajectory a line, and a second file with the settings that made the labels.

    labels.jsonl          task_id, sample, success, actions, promise, progress, weight
    labels.meta.json      label estimator, its settings, and the outcome that labels are made of

People read label files; ``rlprm train-prm --label_file`` learns from them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlprm.errors import ArtifactError, DataError, MismatchError
from rlprm.runtime.files import read_json, write_atomically, write_json
from rlprm.runtime.parsing.renames import current_settings
from rlprm.types import StepLabels, Trajectory

__all__ = ["LABELS", "LabelFile", "write_labels"]

LABELS = "labels.jsonl"
"""Name of the label file in a folder."""
_NEEDED = ("label_estimator", "label_estimator_kwargs", "outcome")


@dataclass(frozen=True)
class LabelFile:
    """The labels of a file, by task and sample number."""

    path: Path
    meta: Mapping[str, Any]
    rows: Mapping[tuple[str, int], tuple[tuple[str, ...], StepLabels]]
    """(task id, sample) → the trajectory's actions and its labels."""

    @classmethod
    def read(cls, path: str | Path) -> LabelFile:
        """Read a label file, or the one in a folder.

        Raises:
            ArtifactError: if the file or its ``.meta.json`` is missing.
            DataError: for a damaged line, or two lines of one trajectory.
        """
        path = Path(path) / LABELS if Path(path).is_dir() else Path(path)
        if not path.exists():
            raise ArtifactError(f"no labels at {path}")
        meta = read_json(_meta_path(path))
        if isinstance(meta, dict):
            meta = current_settings("label", meta)
        if not isinstance(meta, dict) or any(name not in meta for name in _NEEDED):
            raise DataError(f"{_meta_path(path)} must hold a mapping with {', '.join(_NEEDED)}")
        rows: dict[tuple[str, int], tuple[tuple[str, ...], StepLabels]] = {}
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    key, labelled = _from_row(json.loads(line))
                except (ValueError, KeyError, TypeError) as error:
                    message = f"{path}, line {number} is damaged: {type(error).__name__}: {error}"
                    raise DataError(message) from error
                if key in rows:
                    raise DataError(
                        f"{path}, line {number}: sample {key[1]} of task {key[0]!r} is there twice"
                    )
                rows[key] = labelled
        return cls(path, meta, rows)

    @property
    def has_progress(self) -> bool:
        """Whether any trajectory has targets for progress."""
        return any(labels.progress for _, labels in self.rows.values())

    def labels_of(self, trajectory: Trajectory) -> StepLabels | None:
        """Return a trajectory's labels; None if the file has none.

        Raises:
            MismatchError: if the labels of this task and sample belong to another trajectory.
        """
        labelled = self.rows.get((trajectory.task.id, trajectory.sample))
        if labelled is None:
            return None
        actions, labels = labelled
        if actions != tuple(step.action for step in trajectory.steps):
            raise MismatchError(
                f"{self.path} labels another trajectory as sample {trajectory.sample} of task "
                f"{trajectory.task.id!r}: its actions differ; the labels belong to another collection"
            )
        return labels


def write_labels(
    path: str | Path,
    trajectories: Sequence[Trajectory],
    labels: Sequence[StepLabels],
    *,
    label_estimator: str,
    label_estimator_kwargs: Mapping[str, Any],
    outcome: str,
    **further: Any,
) -> None:
    """Write a label file and its ``.meta.json``.

    Args:
        path: of the label file.
        trajectories: each with at least one step.
        labels: of each trajectory.
        label_estimator: name of the label estimator.
        label_estimator_kwargs: settings of the label estimator.
        outcome: the number that the labels are made of, ``"success"`` or ``"score"``.
        **further: more entries of ``.meta.json``, for instance costs.
    """
    path = Path(path)
    lines = (
        json.dumps(_to_row(t, row), ensure_ascii=False) for t, row in zip(trajectories, labels, strict=True)
    )
    write_atomically(path, "".join(line + "\n" for line in lines))
    meta = {
        "label_estimator": label_estimator,
        "label_estimator_kwargs": dict(label_estimator_kwargs),
        "outcome": outcome,
        **further,
    }
    write_json(_meta_path(path), meta)


def _meta_path(path: Path) -> Path:
    return path.with_suffix(".meta.json")


def _to_row(trajectory: Trajectory, labels: StepLabels) -> dict[str, Any]:
    return {
        "task_id": trajectory.task.id,
        "sample": trajectory.sample,
        "success": trajectory.outcome.success,
        "actions": [step.action for step in trajectory.steps],
        "promise": list(labels.promise),
        "progress": list(labels.progress),
        "weight": list(labels.weight),
    }


def _from_row(row: Mapping[str, Any]) -> tuple[tuple[str, int], tuple[tuple[str, ...], StepLabels]]:
    actions = tuple(str(action) for action in row["actions"])
    labels = StepLabels(*(tuple(map(float, row[name])) for name in ("promise", "progress", "weight")))
    steps = len(actions)
    if not len(labels.promise) == len(labels.weight) == steps + 1 or len(labels.progress) not in (0, steps):
        raise ValueError(
            f"{len(labels.promise)} promise targets, {len(labels.weight)} weights and {len(labels.progress)} "
            f"progress targets for {steps} actions; expected T+1, T+1 and T or none"
        )
    if not all(map(math.isfinite, (*labels.promise, *labels.progress, *labels.weight))):
        raise ValueError("a target or weight is not finite")
    return (str(row["task_id"]), int(row["sample"])), (actions, labels)
