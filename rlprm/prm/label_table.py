"""The life of a run's labels: when they are made, what of, and which of them a batch gets.

Labels that need no values are the same at any time. The others are returns as long as the values mean
nothing (the cold start); after that they are made of the values of the model, at the start of every epoch
(then they are a table, kept beside checkpoints) or for every batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from rlprm import labels
from rlprm.labels.base import LabelBatch
from rlprm.models.value_positions import links_per_action
from rlprm.prm.config import PRMConfig
from rlprm.prm.stored import StoredLabels

__all__ = ["LabelTable"]

_WITHOUT_VALUES = "returns"
"""Estimator that stands in for a value-based one where values must not be used: λ = 1 returns."""
_FILE = "labels.pt"
"""Labels of the epoch, in a checkpoint's folder."""


class LabelTable:
    """The labels of a training run.

    Args:
        settings: name the estimator, its settings, when labels are refreshed, and the cold start.
        stored: labels to learn from; made by the estimator where None.

    Attributes:
        epoch: the one that runs, from 1.
        rows: labels of all trajectories to learn from; None where every batch gets labels of its own.
        resumed_from: folder of the checkpoint that the next epoch to start goes on from.
    """

    def __init__(self, settings: PRMConfig, stored: StoredLabels | None = None) -> None:
        self.settings, self.stored = settings, stored
        self.epoch = 1
        self.rows: LabelBatch | None = None if stored is None else stored.train
        self.resumed_from: Path | None = None

    @property
    def needs_values(self) -> bool:
        """Whether labels are made of the model's values."""
        return self.stored is None and labels.load(self.settings.label_estimator).NEEDS_VALUES

    @property
    def is_cold(self) -> bool:
        """Whether the values still mean nothing, so that labels must not be made of them."""
        return self.needs_values and self.epoch <= self.settings.cold_start_epochs

    @property
    def is_due(self) -> bool:
        """Whether the labels of this epoch have to be made, of the values at its start, before it runs."""
        by_epoch = self.settings.relabel == "epoch"
        return by_epoch and self.rows is None and self.needs_values and not self.is_cold

    def start(self, epoch: int) -> None:
        """Enter an epoch (counted from 1); of its labels there are those that a checkpoint kept, if any."""
        self.epoch = epoch
        folder, self.resumed_from = self.resumed_from, None
        if self.stored is None:
            self.rows = None if folder is None else _read(folder, epoch)

    def fill(self, values_BT1: Tensor, outcomes_B: Tensor, lengths_B: Tensor) -> None:
        """Make the labels of this epoch, of all trajectories to learn from."""
        self.rows = self.make(values_BT1, outcomes_B, lengths_B)

    def make(self, values_BT1: Tensor, outcomes_B: Tensor, lengths_B: Tensor) -> LabelBatch:
        """Return what the estimator makes of a batch in this epoch; returns while it is cold."""
        return self._by(self.is_cold, values_BT1, outcomes_B, lengths_B)

    def labels_of(self, inputs: Mapping[str, Tensor], values_BT1: Tensor) -> LabelBatch:
        """Return the labels of a batch, without weight in rows that only fill it up.

        Args:
            inputs: ``outcomes`` (B,), ``lengths`` (B,), ``index`` (B,) among the trajectories to learn from,
                and ``is_real`` (B,), False for a row that counts for nothing.
            values_BT1: the model's; they give the width, and labels where those are refreshed by batch.
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
        """Return what held-out values are measured against: labels that depend neither on them nor on time.

        They are the stored ones, or the estimator's where it needs no values, else returns. Labels made of
        the values to be measured would call any chain of equal values right but for its end, and would
        change with the cold start.
        """
        if self.stored is not None:
            return self.stored.held_out
        return self._by(self.needs_values, values_BT1, outcomes_B, lengths_B)

    def save(self, folder: Path) -> None:
        """Put the labels of this epoch beside a checkpoint: the weights they were made of are gone by now."""
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
    """Return the labels that a checkpoint holds of an epoch, if any."""
    if not (folder / _FILE).exists():
        return None
    kept = torch.load(folder / _FILE, weights_only=True)
    return LabelBatch(**kept["labels"]) if kept["epoch"] == epoch else None


def _chosen(rows: LabelBatch, index_B: Tensor, values_BT1: Tensor) -> LabelBatch:
    """Pick the rows of a batch, as wide and where its values are."""
    width, index = values_BT1.shape[1], index_B.cpu()
    return LabelBatch(
        rows.promise[index, :width],
        rows.progress[index, : width - 1],
        rows.promise_weight[index, :width],
        rows.progress_weight[index, : width - 1],
    ).to(values_BT1.device)
