"""Labels from a file, matched with the trajectories they belong to."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

from rlprm.data.label_files import LabelFile
from rlprm.errors import DataError, MismatchError
from rlprm.labels.base import LabelBatch, from_step_labels
from rlprm.models.heads.value_positions import chain_labels
from rlprm.types import Trajectory

__all__ = ["StoredLabels", "labelled_trajectories"]

log = logging.getLogger(__name__)


class StoredLabels(NamedTuple):
    """Labels of a trainer's trajectories, in the order of the trajectories."""

    train: LabelBatch
    held_out: LabelBatch

    @classmethod
    def from_file(
        cls, file: LabelFile, train: Sequence[Trajectory], held_out: Sequence[Trajectory], value_reads: str
    ) -> StoredLabels:
        """Take the labels of the trajectories from a file, one target for each value of their chains.

        Raises:
            DataError: for a trajectory without labels.
            MismatchError: for labels of another trajectory, or of a chain with other positions.
        """
        return cls(_batch(file, train, value_reads), _batch(file, held_out, value_reads))


def labelled_trajectories(
    trajectories: Sequence[Trajectory], file: LabelFile, outcome: str
) -> list[Trajectory]:
    """Leave out trajectories without labels in a file.

    Args:
        trajectories: to learn from.
        file: of labels.
        outcome: the outcome that the labels must have been made of, ``"success"`` or ``"score"``.

    Raises:
        DataError: if none remains.
        MismatchError: if the labels were made of another outcome, or of other trajectories.
    """
    made_of = file.meta["outcome"]
    if made_of != outcome:
        raise MismatchError(
            f"outcome: got {outcome!r}, but the labels at {file.path} are made of {made_of!r}"
        )
    labelled = [trajectory for trajectory in trajectories if file.labels_of(trajectory) is not None]
    if not labelled:
        raise DataError(f"{file.path} has labels for none of the {len(trajectories)} usable trajectories")
    if len(labelled) < len(trajectories):
        log.info(
            "%d of %d trajectories have labels; the others are left out", len(labelled), len(trajectories)
        )
    return labelled


def _batch(file: LabelFile, trajectories: Sequence[Trajectory], value_reads: str) -> LabelBatch:
    rows = []
    for trajectory in trajectories:
        labels = file.labels_of(trajectory)
        if labels is None:
            raise DataError(
                f"{file.path} has no labels for sample {trajectory.sample} of task {trajectory.task.id!r}"
            )
        rows.append(chain_labels(labels, value_reads))
    return from_step_labels(rows)
