"""Reading a scalar model along sequences that grow from call to call, and branch: a beam's candidates.

Reading all candidates of a round from their beginning costs as many tokens as the
whole search so far, round after round. Here a round feeds what is new only:
the common continuation of all branches of a parent once (the observation), then
each branch's own tokens (the action).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from rlprm.models.prefix_cache import Extended, PrefixCache, sequence_key


class Branch(NamedTuple):
    """A sequence, where it is read, and how it came about."""

    ids: Sequence[int]
    positions: Sequence[int]
    """Ascending indices into ``ids``."""
    parent: int
    """Length of the prefix that was a whole sequence in the previous call; 0 if there was none."""
    fork: int
    """Length of the prefix it shares with its siblings, more than ``parent`` and less than all."""


class PrefixReader:
    """Reads growing, branching sequences; remembers one call.

    Args:
        model: a token classification model with one label, read in evaluation mode, and left as it is.
        pad_id: any token id.
    """

    def __init__(self, model: PreTrainedModel, *, pad_id: int = 0) -> None:
        self.model = model
        self.pad_id = pad_id
        self._prefixes = PrefixCache()
        self._read: dict[bytes, dict[int, float]] = {}
        """Sequence of the previous call → position → value."""

    @torch.no_grad()
    def read(self, branches: Sequence[Branch]) -> tuple[list[list[float]], list[int]]:
        """Read every branch; whatever of them was not kept is read from the beginning.

        Returns:
            The raw outputs at each branch's positions, and how many tokens went through the model for
            it. Tokens shared by siblings count for the first of them.
        """
        first_of: dict[bytes, int] = {}
        for index, branch in enumerate(branches):
            first_of.setdefault(sequence_key(branch.ids[: branch.fork]), index)
        stems = [branches[index] for index in first_of.values()]
        common = self._extend(
            [stem.ids[: stem.fork] for stem in stems],
            [stem.ids[: stem.parent] if stem.parent else None for stem in stems],
        )
        new = _values_at(stems, [stem.fork for stem in stems], common)
        values = {
            key: {**self._read.get(sequence_key(stem.ids[: stem.parent]), {}), **of_stem}
            for key, stem, of_stem in zip(first_of, stems, new, strict=True)
        }
        self._prefixes.keep(common.cache, common.mask_BL, [stem.ids[: stem.fork] for stem in stems])
        own = self._extend([b.ids for b in branches], [b.ids[: b.fork] for b in branches])
        found = [
            {**values[sequence_key(b.ids[: b.fork])], **of_branch}
            for b, of_branch in zip(
                branches, _values_at(branches, [len(b.ids) for b in branches], own), strict=True
            )
        ]
        self._prefixes.keep(own.cache, own.mask_BL, [b.ids for b in branches])
        self._read = {sequence_key(b.ids): of_b for b, of_b in zip(branches, found, strict=True)}
        tokens = list(own.fed_B)
        for fed, index in zip(common.fed_B, first_of.values(), strict=True):
            tokens[index] += fed
        return [[of_b[p] for p in b.positions] for b, of_b in zip(branches, found, strict=True)], tokens

    def _extend(
        self, sequences: Sequence[Sequence[int]], prefixes: Sequence[Sequence[int] | None]
    ) -> Extended:
        was_training = self.model.training
        self.model.eval()
        try:
            return self._prefixes.extend(self.model, sequences, prefixes, pad_id=self.pad_id)
        finally:
            self.model.train(was_training)


def _values_at(branches: Sequence[Branch], lengths: Sequence[int], done: Extended) -> list[dict[int, float]]:
    """Pick the outputs at each branch's positions among its tokens that were just fed.

    Args:
        branches: one per row.
        lengths: of each row; its tokens stand at the right end of the columns, the newest of them new.
        done: what the model gave.
    """
    rows = done.logits.squeeze(-1).float().tolist()
    return [
        {p: row[p - length] for p in branch.positions if length - fed <= p < length}
        for branch, length, row, fed in zip(branches, lengths, rows, done.fed_B, strict=True)
    ]
