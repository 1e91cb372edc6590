"""Numbers that a model with a head gives the steps of trajectories: finished ones whole, a search's by parts.

The scorers that read a model share this reader. A search's candidates are read by what is new in them: their
keys and values are kept until the next call or the end of the search, and what branches of one task have in
common is read once. Taken for candidates are those of a search's rounds (``searching``), calls that continue
the one before by a step, and calls with unfinished trajectories. All others are read whole.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from transformers import PreTrainedModel

from rlprm.data.batching import budget_batches, call_tokens
from rlprm.data.rendering import ChatRenderer
from rlprm.data.rerender import Rerenderer
from rlprm.errors import DataError, MismatchError
from rlprm.models.heads.reading import read_sequences
from rlprm.models.heads.value_positions import ValuePosition, chain_positions
from rlprm.models.kv_cache.prefix_reader import Branch, PrefixReader
from rlprm.models.kv_cache.support import reads_growing, reads_trees
from rlprm.models.loading import load_tokenizer
from rlprm.models.positions import positions_of
from rlprm.types import Trajectory

__all__ = ["Reading", "TrajectoryReader"]

log = logging.getLogger(__name__)


class Reading(NamedTuple):
    """What a model gave one trajectory."""

    trajectory: Trajectory
    """In the model's own tokens."""
    logits: list[float]
    """The head's raw outputs, one for each value of the chain."""
    tokens: int
    """Model tokens that were processed."""


class TrajectoryReader:
    """Reads the values of a batch of trajectories with one forward per batch.

    Args:
        name: of the scorer, for messages.
        model: token classification model with one label, or one with an lm head.
        template: hash of the chat template and tokenizer that the model was trained with.
        value_reads: the chain's kind, see ``rlprm.models.heads.value_positions``.
        head: ``scalar`` or ``lm``.
        tokenizer: folder of the model's tokenizer, with which trajectories of other tokenizers are rendered
            again; they are refused if it is None.
        token_budget: padded tokens of one forward.
    """

    def __init__(
        self,
        name: str,
        model: PreTrainedModel,
        template: str,
        *,
        value_reads: str,
        head: str,
        tokenizer: str | None,
        token_budget: int,
    ) -> None:
        self.name, self.model, self.template = name, model, template
        self.value_reads, self.head = value_reads, head
        self.tokenizer, self.token_budget = tokenizer, token_budget
        self._rerenderer: Rerenderer | None = None
        self._reader = PrefixReader(model)
        self._searching = False

    @contextmanager
    def searching(self) -> Iterator[None]:
        """See :class:`rlprm.scorers.base.SearchingScorer`."""
        self._reader.clear()
        self._searching = True
        try:
            yield
        finally:
            self._searching = False
            self._reader.clear()

    def read(self, trajectories: Sequence[Trajectory]) -> list[Reading]:
        """Read the values of every trajectory.

        Trajectories of another chat template or vocabulary are rendered again with the model's own.

        Raises:
            MismatchError: for such trajectories if there is no tokenizer to do it with, or it is not the
                one the model was trained with.
            DataError: for a trajectory without tokens, or with more than the model takes.
        """
        own = [self._in_own_tokens(trajectory) for trajectory in trajectories]
        logits, tokens = self._read_growing(own) or self._read_whole(own)
        return [Reading(*row) for row in zip(own, logits, tokens, strict=True)]

    def _read_whole(self, trajectories: Sequence[Trajectory]) -> tuple[list[list[float]], list[int]]:
        self._reader.clear()
        lengths = [len(trajectory.token_ids) for trajectory in trajectories]
        logits = read_sequences(
            self.model,
            [trajectory.token_ids for trajectory in trajectories],
            [self._positions(trajectory) for trajectory in trajectories],
            budget_batches(lengths, self.token_budget, call_tokens=call_tokens(self.model.device)),
        )
        return logits, lengths

    def _read_growing(self, trajectories: Sequence[Trajectory]) -> tuple[list[list[float]], list[int]] | None:
        """Read what is new in a search's candidates; None for other trajectories."""
        if not all(t.steps for t in trajectories) or not reads_growing(self.model):
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
        growing = self._searching or self._reader.holds(branches)
        if not growing and all(t.stop is not None for t in trajectories):
            return None
        self._reader.trees = reads_trees(self.model)
        return self._reader.read(branches)

    def _positions(self, trajectory: Trajectory) -> tuple[ValuePosition, ...]:
        return chain_positions(trajectory, self.value_reads, self.head)

    def _in_own_tokens(self, trajectory: Trajectory) -> Trajectory:
        if trajectory.template != self.template:
            self._rerenderer = self._rerenderer or self._load_rerenderer(trajectory)
            trajectory = self._rerenderer.render(trajectory)
        length, limit = len(trajectory.token_ids), positions_of(self.model.config)
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
        if self.tokenizer is None:
            raise MismatchError(
                f"trajectory of task {foreign.task.id} was rendered with template {foreign.template}, "
                f"{self.name} was trained with {self.template}"
            )
        renderer = ChatRenderer(load_tokenizer(self.tokenizer))
        if renderer.template_hash != self.template:
            raise MismatchError(
                f"{self.name} was trained with template {self.template}, but the tokenizer in "
                f"{self.tokenizer} has {renderer.template_hash}"
            )
        log.warning(
            "%s reads trajectories of template %s rendered again with its own, %s",
            self.name, foreign.template, self.template,
        )  # fmt: skip
        return Rerenderer(renderer)
