"""Scores from a trained checkpoint: AgentPRM, ORM, or any other reward model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from transformers import PreTrainedModel

from rlprm.errors import DataError
from rlprm.functional.activation import activate
from rlprm.models.heads.value_positions import step_scores
from rlprm.models.loading import load_reward_model
from rlprm.models.manifest import Manifest
from rlprm.scorers._reader import TrajectoryReader
from rlprm.types import StepScores, Trajectory

WEIGHTS = ("folder",)


def build(name: str, *, folder: str, dtype: str = "auto", token_budget: int = 16_384) -> CheckpointScorer:
    """Build the scorer of a trained PRM or ORM; see :class:`rlprm.scorers.base.ScorerModule`."""
    return CheckpointScorer.load(name, folder, dtype=dtype, token_budget=token_budget)


class CheckpointScorer:
    """Scores all steps of a batch of trajectories with one forward per batch.

    A search's candidates are read by what is new in them, see ``rlprm/scorers/_reader.py``.

    Args:
        name: shown in tables.
        model: token classification model with one label, or one with an lm head.
        manifest: how to read it.
        tokenizer: folder of its tokenizer, with which trajectories of other tokenizers are rendered
            again; they are refused where it is None.
        token_budget: padded tokens of one forward.
    """

    def __init__(
        self,
        name: str,
        model: PreTrainedModel,
        manifest: Manifest,
        *,
        tokenizer: str | None = None,
        token_budget: int = 16_384,
    ) -> None:
        self.name = name
        self.model = model
        self.manifest = manifest
        self.tokenizer = tokenizer
        self._reader = TrajectoryReader(
            name, model, manifest.template, value_reads=manifest.value_reads, head=manifest.head,
            tokenizer=tokenizer, token_budget=token_budget,
        )  # fmt: skip

    @classmethod
    def load(
        cls, name: str, folder: str, *, dtype: str = "auto", token_budget: int = 16_384
    ) -> CheckpointScorer:
        """Load a checkpoint and its manifest.

        Raises:
            ArtifactError: if the folder is missing or is not a PRM.
        """
        manifest = Manifest.load(folder)
        return cls(
            name,
            load_reward_model(folder, manifest.head, scale=manifest.lm_scale, dtype=dtype),
            manifest,
            tokenizer=folder,
            token_budget=token_budget,
        )

    def searching(self) -> AbstractContextManager[None]:
        """See :class:`rlprm.scorers.base.SearchingScorer`."""
        return self._reader.searching()

    def score(self, trajectories: Sequence[Trajectory]) -> list[StepScores]:
        """Score every step; see :class:`rlprm.scorers.base.Scorer`.

        Trajectories of another chat template or vocabulary are rendered again with the model's own.

        Raises:
            MismatchError: for such trajectories where there is no tokenizer to do it with, or it is not the
                one the model was trained with.
            DataError: for a trajectory without tokens, or with more than the model takes, or a score
                that is not finite.
        """
        return [
            step_scores(
                _values(reading.logits, self.manifest.activation, self.name),
                self.manifest.value_reads,
                tokens=reading.tokens,
            )
            for reading in self._reader.read(trajectories)
        ]


def _values(logits: Sequence[float], activation: str, name: str) -> list[float]:
    values_R = activate(torch.tensor(logits), activation)
    if not bool(torch.isfinite(values_R).all()):
        raise DataError(f"{name} gave a score that is not finite: {values_R.tolist()}")
    values: list[float] = values_R.tolist()
    return values
