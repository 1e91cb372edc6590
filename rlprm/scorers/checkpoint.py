"""Scores from a trained checkpoint: AgentPRM, ORM, or any other model with one output per token."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from rlprm.data.batching import budget_batches
from rlprm.data.reads import read_positions, step_scores
from rlprm.errors import DataError, MismatchError
from rlprm.functional.activation import activate
from rlprm.models.loading import load_scalar_model
from rlprm.models.manifest import Manifest
from rlprm.models.scalar import read_sequences
from rlprm.types import StepScores, Trajectory


class CheckpointScorer:
    """Scores all steps of a batch of trajectories with one forward per batch.

    Args:
        name: shown in tables.
        model: token classification model with one label.
        manifest: how to read it.
        token_budget: padded tokens of one forward.
    """

    def __init__(
        self, name: str, model: PreTrainedModel, manifest: Manifest, *, token_budget: int = 16_384
    ) -> None:
        self.name = name
        self.model = model
        self.manifest = manifest
        self.token_budget = token_budget

    @classmethod
    def load(
        cls, name: str, folder: str, *, dtype: str = "auto", token_budget: int = 16_384
    ) -> CheckpointScorer:
        """Load a checkpoint and its manifest.

        Raises:
            ArtifactError: if the folder is missing or is not a PRM.
        """
        manifest = Manifest.load(folder)
        return cls(name, load_scalar_model(folder, dtype=dtype), manifest, token_budget=token_budget)

    def score(self, trajectories: Sequence[Trajectory]) -> list[StepScores]:
        """Score every step; see :class:`rlprm.scorers.base.Scorer`.

        Raises:
            MismatchError: for trajectories rendered with another chat template or vocabulary.
            DataError: for a trajectory without tokens, or a score that is not finite.
        """
        for trajectory in trajectories:
            if trajectory.template != self.manifest.template:
                raise MismatchError(
                    f"trajectory of task {trajectory.task.id} was rendered with template "
                    f"{trajectory.template}, {self.name} was trained with {self.manifest.template}"
                )
            if not trajectory.token_ids:
                raise DataError(
                    f"trajectory of task {trajectory.task.id} has no tokens to score: {trajectory.error}"
                )
        logits = read_sequences(
            self.model,
            [trajectory.token_ids for trajectory in trajectories],
            [read_positions(trajectory, self.manifest.value_reads) for trajectory in trajectories],
            budget_batches([len(trajectory.token_ids) for trajectory in trajectories], self.token_budget),
        )
        return [
            step_scores(
                _values(row, self.manifest.activation, self.name),
                self.manifest.value_reads,
                tokens=len(t.token_ids),
            )
            for row, t in zip(logits, trajectories, strict=True)
        ]


def _values(logits: Sequence[float], activation: str, name: str) -> list[float]:
    values_R = activate(torch.tensor(logits), activation)
    if not bool(torch.isfinite(values_R).all()):
        raise DataError(f"{name} gave a score that is not finite: {values_R.tolist()}")
    values: list[float] = values_R.tolist()
    return values
