"""When a run's labels are made, from which values, and which of them a batch gets.

Labels that need no values stay the same. Value-based labels are returns during the cold start, because
the values of an untrained head mean nothing. Afterwards they are made of the model's values, either at the
start of every epoch or for every batch. Labels of an epoch form a table, which is saved with checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from rlprm import labels
from rlprm.labels.base import LabelBatch
from rlprm.models.heads.value_positions import links_per_action
from rlprm.prm.config import PRMConfig
from rlprm.prm.stored import StoredLabels

__all__ = ["LabelTable"]

_WITHOUT_VALUES = "returns"
"""Estimator that replaces a value-based one during the cold start: returns, which are TD-GAE with λ = 1."""
_FILE = "labels.pt"
"""File of the epoch's labels in a checkpoint's folder."""


class LabelTable:
    """The labels of a training run.

    Args:
        settings: the estimator, its settings, when labels are made anew, and the cold start.
        stored: labels from a file; the estimator makes the labels if None.

    Attributes:
        epoch: the current epoch, counted from 1.
        progress: epochs that are done, a part of the current one included.
        rows: labels of all trajectories to learn from; None if every batch gets labels of its own.
        resumed_from: folder of the checkpoint from which the next epoch resumes.
    """

    def __init__(self, settings: PRMConfig, stored: StoredLabels | None = None) -> None:
        self.settings, self.stored = settings, stored
        self.epoch, self.progress = 1, 0.0
        self.rows: LabelBatch | None = None if stored is None else stored.train
        self.resumed_from: Path | None = None

    @property
    def needs_values(self) -> bool:
        """Whether labels are made of the model's values."""
        return self.stored is None and labels.load(self.settings.label_estimator).NEEDS_VALUES

    @property
    def is_cold(self) -> bool:
        """Whether the cold start lasts, so that labels must not be made of values."""
        # Shares of an epoch are rounded numbers.
        return self.needs_values and self.progress < self.settings.cold_start_epochs - 1e-6

    @property
    def is_due(self) -> bool:
        """Whether the labels of this epoch must be made now, from the values of this moment.

        That is the start of the epoch, or the end of a cold start within the epoch.
        """
        by_epoch = self.settings.relabel == "epoch"
        return by_epoch and self.rows is None and self.needs_values and not self.is_cold

    def start(self, epoch: int) -> None:
        """Start an epoch (counted from 1); load its labels if the run resumes from a checkpoint within it."""
        self.epoch, self.progress = epoch, max(self.progress, epoch - 1.0)
        folder, self.resumed_from = self.resumed_from, None
        if self.stored is None:
            self.rows = None if folder is None else _read(folder, epoch)

    def fill(self, values_BT1: Tensor, outcomes_B: Tensor, lengths_B: Tensor) -> None:
        """Make this epoch's labels of all trajectories to learn from."""
        self.rows = self.make(values_BT1, outcomes_B, lengths_B)

    def make(self, values_BT1: Tensor, outcomes_B: Tensor, lengths_B: Tensor) -> LabelBatch:
        """Return the labels of a batch in this epoch: the estimator's, or returns during the cold start."""
        return self._by(self.is_cold, values_BT1, outcomes_B, lengths_B)

    def labels_of(self, inputs: Mapping[str, Tensor], values_BT1: Tensor) -> LabelBatch:
        """Return the labels of a batch; filler rows get weight 0.

        Args:
            inputs: ``outcomes`` (B,), ``lengths`` (B,), ``index`` (B,) among the trajectories to learn from,
                and ``is_real`` (B,), False for filler rows.
            values_BT1: of the model. They set the width; with ``relabel: batch`` the labels are made of them.
        """
        if self.rows is None:
            targets = self.make(values_BT1.detach(), inputs["outcomes"], inputs["lengths"])
        else:
            targets = _chosen(self.rows, inputs["index"], values_BT1)
        is_real_B1 = inputs["is_real"].unsqueeze(1)
        return replace(
            targets,
            promise_weight=targets.promise_weight * is_real_B1,
            progress_weight=targets.progress_weight * is_real_B1,
        )

    def held_out(self, values_BT1: Tensor, outcomes_B: Tensor, lengths_B: Tensor) -> LabelBatch:
        """Return the labels that held-out values are measured against; they are the same in every epoch.

        They are the labels of the file, the estimator's if it needs no values, and returns otherwise. Labels
        made of the measured values themselves would find no error in equal values except at the end of
        the chain, and would change after the cold start.
        """
        if self.stored is not None:
            return self.stored.held_out
        return self._by(self.needs_values, values_BT1, outcomes_B, lengths_B)

    def save(self, folder: Path) -> None:
        """Save this epoch's labels beside a checkpoint; the weights that made them no longer exist."""
        if self.stored is None and self.rows is not None:
            torch.save({"epoch": self.epoch, "labels": asdict(self.rows)}, folder / _FILE)

    def _by(
        self, without_values: bool, values_BT1: Tensor, outcomes_B: Tensor, lengths_B: Tensor
    ) -> LabelBatch:
        if without_values:
            return labels.load(_WITHOUT_VALUES).label(values_BT1, outcomes_B, lengths_B)
        return labels.make_labels(
            labels.load(self.settings.label_estimator),
            values_BT1,
            outcomes_B,
            lengths_B,
            self.settings.label_estimator_kwargs,
            links_per_action=links_per_action(self.settings.value_reads),
        )


def _read(folder: Path, epoch: int) -> LabelBatch | None:
    """Return an epoch's labels from a checkpoint; None if the checkpoint has none."""
    if not (folder / _FILE).exists():
        return None
    kept = torch.load(folder / _FILE, weights_only=True)
    return LabelBatch(**kept["labels"]) if kept["epoch"] == epoch else None


def _chosen(rows: LabelBatch, index_B: Tensor, values_BT1: Tensor) -> LabelBatch:
    """Return the rows of a batch, cut to the width of its values and on their device."""
    width, index = values_BT1.shape[1], index_B.cpu()
    return LabelBatch(
        rows.promise[index, :width],
        rows.progress[index, : width - 1],
        rows.promise_weight[index, :width],
        rows.progress_weight[index, : width - 1],
    ).to(values_BT1.device)
