"""Scores from a trained checkpoint: AgentPRM, ORM, or any other reward model."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from rlprm.data.batching import budget_batches
from rlprm.data.rendering import ChatRenderer
from rlprm.data.rerender import Rerenderer
from rlprm.errors import DataError, MismatchError
from rlprm.functional.activation import activate
from rlprm.models.loading import load_reward_model, load_tokenizer
from rlprm.models.manifest import Manifest
from rlprm.models.prefix_reader import Branch, PrefixReader
from rlprm.models.reading import read_sequences
from rlprm.models.value_positions import ValuePosition, chain_positions, step_scores
from rlprm.types import StepScores, Trajectory

log = logging.getLogger(__name__)


def build(name: str, *, folder: str, dtype: str = "auto", token_budget: int = 16_384) -> CheckpointScorer:
    """Build the scorer of a trained PRM or ORM; see :class:`rlprm.scorers.base.ScorerModule`."""
    return CheckpointScorer.load(name, folder, dtype=dtype, token_budget=token_budget)


class CheckpointScorer:
    """Scores all steps of a batch of trajectories with one forward per batch.

    A search's candidates are read by what is new in them: their keys and values are kept until the next
    call or the end of the search, and what branches of one task have in common is read once. Taken for
    candidates are those of a search's rounds (``searching``), calls that continue the one before by a step,
    and calls with unfinished trajectories. All others are read whole.

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
        self.token_budget = token_budget
        self._rerenderer: Rerenderer | None = None
        self._reader = PrefixReader(model)

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

    @contextmanager
    def searching(self) -> Iterator[None]:
        """See :class:`rlprm.scorers.base.SearchingScorer`."""
        self._reader.begin()
        try:
            yield
        finally:
            self._reader.clear()

    def score(self, trajectories: Sequence[Trajectory]) -> list[StepScores]:
        """Score every step; see :class:`rlprm.scorers.base.Scorer`.

        Trajectories of another chat template or vocabulary are rendered again with the model's own.

        Raises:
            MismatchError: for such trajectories where there is no tokenizer to do it with, or it is not the
                one the model was trained with.
            DataError: for a trajectory without tokens, or with more than the model takes, or a score
                that is not finite.
        """
        trajectories = [self._in_own_tokens(trajectory) for trajectory in trajectories]
        logits, tokens = self._read_growing(trajectories) or self._read_whole(trajectories)
        return [
            step_scores(
                _values(row, self.manifest.activation, self.name), self.manifest.value_reads, tokens=fed
            )
            for row, fed in zip(logits, tokens, strict=True)
        ]

    def _read_whole(self, trajectories: Sequence[Trajectory]) -> tuple[list[list[float]], list[int]]:
        self._reader.clear()
        lengths = [len(trajectory.token_ids) for trajectory in trajectories]
        logits = read_sequences(
            self.model,
            [trajectory.token_ids for trajectory in trajectories],
            [self._positions(trajectory) for trajectory in trajectories],
            budget_batches(lengths, self.token_budget),
        )
        return logits, lengths

    def _read_growing(self, trajectories: Sequence[Trajectory]) -> tuple[list[list[float]], list[int]] | None:
        """Read what is new in a search's candidates; None for other trajectories."""
        if not all(t.steps for t in trajectories):
            return None
        branches = [
            Branch(
                ids=t.token_ids,
                positions=self._positions(t),
                parent=t.steps[-2].end + 1 if len(t.steps) > 1 else 0,
                fork=t.steps[-1].start,
                owner=(t.task.environment, t.task.id),
            )
            for t in trajectories
        ]
        # The last round of a task, all finished, is read alone or beside other tasks' unfinished candidates,
        # and has to cost the same. Unfinished ones that continue nothing will be back a step longer.
        if not self._reader.holds(branches) and all(t.stop is not None for t in trajectories):
            return None
        return self._reader.read(branches)

    def _positions(self, trajectory: Trajectory) -> tuple[ValuePosition, ...]:
        return chain_positions(trajectory, self.manifest.value_reads, self.manifest.head)

    def _in_own_tokens(self, trajectory: Trajectory) -> Trajectory:
        if trajectory.template != self.manifest.template:
            self._rerenderer = self._rerenderer or self._load_rerenderer(trajectory)
            trajectory = self._rerenderer.render(trajectory)
        length, limit = len(trajectory.token_ids), self.model.config.max_position_embeddings
        if not length:
            raise DataError(
                f"trajectory of task {trajectory.task.id} has no tokens to score: {trajectory.error}"
            )
        if length > limit:
            raise DataError(
                f"trajectory of task {trajectory.task.id} has {length} tokens for {self.name}, which takes "
                f"{limit}; collect with a lower context_length or round_limit"
            )
        return trajectory

    def _load_rerenderer(self, foreign: Trajectory) -> Rerenderer:
        own = self.manifest.template
        if self.tokenizer is None:
            raise MismatchError(
                f"trajectory of task {foreign.task.id} was rendered with template {foreign.template}, "
                f"{self.name} was trained with {own}"
            )
        renderer = ChatRenderer(load_tokenizer(self.tokenizer))
        if renderer.template_hash != own:
            raise MismatchError(
                f"{self.name} was trained with template {own}, but the tokenizer in {self.tokenizer} has "
                f"{renderer.template_hash}"
            )
        log.warning(
            "%s reads trajectories of template %s rendered again with its own, %s",
            self.name, foreign.template, own,
        )  # fmt: skip
        return Rerenderer(renderer)


def _values(logits: Sequence[float], activation: str, name: str) -> list[float]:
    values_R = activate(torch.tensor(logits), activation)
    if not bool(torch.isfinite(values_R).all()):
        raise DataError(f"{name} gave a score that is not finite: {values_R.tolist()}")
    values: list[float] = values_R.tolist()
    return values
