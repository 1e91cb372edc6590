"""Values of sequences that grow from call to call and branch: the candidates of a beam.

If every round of a search read its candidates from their first token, a round would cost as many
tokens as all rounds before together. This reader keeps keys and values, and a round feeds only
new tokens. The continuation that all branches of a parent share (the observation) is fed once, then
each branch's own tokens (the action). Siblings share a row of the cache if a tree mask is right for the
model; otherwise the row of their parent is copied for each of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlprm.models.causal import body_of
from rlprm.models.heads.lm_head import LMHead
from rlprm.models.heads.reading import stack_positions
from rlprm.models.heads.value_positions import ValuePosition
from rlprm.models.kv_cache.prefix_cache import Extended, PrefixCache, sequence_key
from rlprm.models.kv_cache.tree import feed_branches

_LARGEST_MASK = 2**25
"""Entries of a tree mask; 128 MB in float32."""


class Branch(NamedTuple):
    """A sequence, the positions of its values, and the sequence that it continues."""

    ids: Sequence[int]
    positions: Sequence[ValuePosition]
    parent: int
    """Length of the prefix that was a sequence of the previous call; 0 if no prefix was."""
    fork: int
    """Length of the prefix shared with the siblings; above ``parent``, below the length of ``ids``."""
    owner: Hashable = None
    """Only branches of one owner are siblings or continue each other, so that no owner's costs depend on
    another's."""


class PrefixReader:
    """Computes the values of growing, branching sequences; keeps the keys and values of one call.

    Args:
        model: a token classification model with one label, or one with an lm head. It runs in
            evaluation mode; its own mode is restored afterwards.
        pad_id: any token id.
        call_tokens: see :class:`~rlprm.models.kv_cache.prefix_cache.PrefixCache`.
        trees: whether a tree mask is right for the model, so that siblings may share a row.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        pad_id: int = 0,
        call_tokens: float | None = None,
        trees: bool = False,
    ) -> None:
        self.model = model
        self.pad_id = pad_id
        self.trees = trees
        self._prefixes = PrefixCache(call_tokens=call_tokens)
        self._read: dict[tuple[Hashable, bytes], dict[ValuePosition, float]] = {}
        """Owner and sequence of the previous call → the values by position."""

    def holds(self, branches: Sequence[Branch]) -> bool:
        """Whether every branch's parent is kept, so that only new tokens are fed; False without branches."""
        return bool(branches) and all(_key(b, b.parent) in self._read for b in branches)

    def clear(self) -> None:
        """Free all keys and values."""
        self._prefixes.clear()
        self._read = {}

    @torch.no_grad()
    def read(self, branches: Sequence[Branch]) -> tuple[list[list[float]], list[int]]:
        """Return the values of every branch; branches whose parent is not kept are fed from the first token.

        Returns:
            The raw outputs at each branch's positions, and the number of tokens that were fed for each
            branch. Tokens shared by siblings count for the first sibling.
        """
        keys = [_key(b, b.fork) for b in branches]
        first_of: dict[tuple[Hashable, bytes], int] = {}
        for index, key in enumerate(keys):
            first_of.setdefault(key, index)
        stems = [branches[index] for index in first_of.values()]
        common = self._extend(
            [stem.ids[: stem.fork] for stem in stems],
            [stem.ids[: stem.parent] if stem.parent else None for stem in stems],
            [stem.owner for stem in stems],
        )
        new = self._values(stems, [stem.fork for stem in stems], common)
        values = {
            key: {**self._read.get(_key(stem, stem.parent), {}), **of_stem}
            for key, stem, of_stem in zip(first_of, stems, new, strict=True)
        }
        stem_of = {key: row for row, key in enumerate(first_of)}
        rows = [stem_of[key] for key in keys]
        own = self._fork(branches, stems, rows, common)
        states = common.logits[rows, -1]  # each row's last token stands in the last column
        of_branches = self._values(branches, [len(b.ids) for b in branches], own, states)
        complete = [{**values[key], **of_branch} for key, of_branch in zip(keys, of_branches, strict=True)]
        self._read = {_key(b, len(b.ids)): of_b for b, of_b in zip(branches, complete, strict=True)}
        tokens = list(own.fed_B)
        for fed, index in zip(common.fed_B, first_of.values(), strict=True):
            tokens[index] += fed
        return [[of_b[p] for p in b.positions] for b, of_b in zip(branches, complete, strict=True)], tokens

    def _extend(
        self,
        sequences: Sequence[Sequence[int]],
        prefixes: Sequence[Sequence[int] | None],
        owners: Sequence[Hashable],
    ) -> Extended:
        with self._evaluating() as body:
            return self._prefixes.extend(body, sequences, prefixes, pad_id=self.pad_id, owners=owners)

    def _fork(
        self, branches: Sequence[Branch], stems: Sequence[Branch], rows: Sequence[int], common: Extended
    ) -> Extended:
        """Feed what each branch has behind its stem, and keep the branches."""
        sequences, owners = [b.ids for b in branches], [b.owner for b in branches]
        suffixes = [b.ids[b.fork :] for b in branches]
        fed_B = [len(suffix) for suffix in suffixes]
        if self.trees and _share_rows(rows, fed_B, common.mask_BL.shape[1]):
            with self._evaluating() as body:
                outputs, mask_BL = feed_branches(
                    body, common.cache, common.mask_BL, rows, suffixes, pad_id=self.pad_id
                )
            self._prefixes.keep(common.cache, mask_BL, sequences, owners, rows)
            return Extended(outputs, common.cache, mask_BL, fed_B)
        self._prefixes.keep(
            common.cache,
            common.mask_BL,
            [stem.ids[: stem.fork] for stem in stems],
            [stem.owner for stem in stems],
        )
        own = self._extend(sequences, [b.ids[: b.fork] for b in branches], owners)
        self._prefixes.keep(own.cache, own.mask_BL, sequences, owners)
        return own

    @contextmanager
    def _evaluating(self) -> Iterator[PreTrainedModel]:
        """Give the part that makes hidden states or values, in evaluation mode."""
        was_training = self.model.training
        self.model.eval()
        try:
            yield body_of(self.model) if isinstance(self.model, LMHead) else self.model
        finally:
            self.model.train(was_training)

    def _values(
        self,
        branches: Sequence[Branch],
        lengths: Sequence[int],
        done: Extended,
        states_BD: Tensor | None = None,
    ) -> list[dict[ValuePosition, float]]:
        """Return the values whose last token was just fed.

        Args:
            branches: one per row.
            lengths: tokens of each row. They fill the columns from the right; the last ones were just fed.
            done: the model's outputs.
            states_BD: the outputs at the token before the fed ones, if that token was fed earlier.
        """
        new = [
            [p for p in b.positions if length - fed <= max(p.place, p.stop - 1) < length]
            for b, length, fed in zip(branches, lengths, done.fed_B, strict=True)
        ]
        if not any(new):
            return [{} for _ in branches]
        width = done.logits.shape[1] + 1
        # Column of token i: i + shift. One column more than was fed, for the token before.
        shift_B = torch.tensor([width - length for length in lengths], device=done.logits.device)
        positions_BP5 = stack_positions(new).to(done.logits.device)
        shifted_BP5 = (positions_BP5 + shift_B[:, None, None]).clamp(min=0)
        columns_BKD = nn.functional.pad(done.logits, (0, 0, 1, 0))
        if states_BD is not None:
            before_B = [width - fed - 1 for fed in done.fed_B]
            columns_BKD[list(range(len(branches))), before_B] = states_BD
        if isinstance(self.model, LMHead):
            rows = [[0] * (width - length) + list(b.ids[max(0, length - width) : length])
                    for b, length in zip(branches, lengths, strict=True)]  # fmt: skip
            ids_BK = torch.tensor(rows, device=columns_BKD.device)
            values_BP = self.model.values_at(columns_BKD, ids_BK, shifted_BP5)
        else:
            values_BP = columns_BKD.squeeze(-1).gather(1, shifted_BP5[..., 0])
        return [
            dict(zip(positions, values, strict=False))
            for positions, values in zip(new, values_BP.float().tolist(), strict=True)
        ]


def _share_rows(rows: Sequence[int], fed_B: Sequence[int], columns: int) -> bool:
    """Whether siblings are to share a row.

    There must be siblings. At most half of the rows may be padding. The mask must stay small, and grows with
    the square of what siblings have together.
    """
    widths = Counter[int]()
    for row, fed in zip(rows, fed_B, strict=True):
        widths[row] += fed
    width = max(widths.values())
    size = len(widths) * width
    is_small = size * (columns + width) <= _LARGEST_MASK
    return len(widths) < len(rows) and size <= 2 * sum(fed_B) and is_small


def _key(branch: Branch, length: int) -> tuple[Hashable, bytes]:
    """Return what identifies the first tokens of a branch."""
    return branch.owner, sequence_key(branch.ids[:length])
