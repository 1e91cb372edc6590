"""A policy from any Hugging Face causal language model with a chat template.

``reuse_cache=True`` keeps the keys and values of the previous call and feeds only what was appended since.
Conversations that share their whole context (16 rollouts of one task at the first turn, the branches of a
beam) are encoded once. ``reuse_cache=False`` encodes every conversation anew at each turn: the reference. A
model that such a cache is wrong for is decoded in another way (:mod:`rlprm.policies.decoding`).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import torch
from transformers import PreTrainedModel

from rlprm.data.batching import pad_right
from rlprm.data.conversation import Conversation
from rlprm.data.rendering import ChatRenderer
from rlprm.errors import ConfigError
from rlprm.models.generation import ends_of
from rlprm.models.kv_cache.prefix_cache import sequence_key
from rlprm.models.kv_cache.support import config_of
from rlprm.models.positions import positions_of
from rlprm.models.sampled_tokens import body_states, read_tokens
from rlprm.policies.base import Completion, uniforms
from rlprm.policies.decoding.base import Contexts, Decoder, Draw
from rlprm.policies.decoding.choice import right_way, shares_rows, way_by_name
from rlprm.policies.decoding.kept import KeptCache
from rlprm.policies.decoding.thoughts import thought_limit
from rlprm.policies.decoding.whole import read_places
from rlprm.policies.self_check import Reread
from rlprm.types import Trajectory

WAVE_TOKENS = {"cpu": 2**18, "gpu": 2**21}
"""Tokens that a wave may come to by default. A CPU is slower with keys and values beyond its caches. On a GPU
this many would take 77 GB in a model of Qwen2.5-3B's shape; few episodes fill their context."""


class HFPolicy:
    """Batched sampling from a causal language model.

    Args:
        model: any causal language model; put into evaluation mode.
        renderer: of the model's tokenizer. An action ends with its closing token, or with another that
            the model's generation config lists as an end (``<|endoftext|>`` for Qwen2.5-Instruct).
        revision: identifies the weights in stored trajectories.
        temperature: of the sampling distribution; 0 is greedy.
        max_new_tokens: length limit of one action, closing token included.
        context_length: limit of a conversation in tokens; the model's own where None.
        reuse_cache: keep keys and values across turns.
        max_thinking_tokens: length limit of a thought, after which its end is forced; no limit where None.
        wave_tokens: bound of ``side_by_side``, in tokens; :data:`WAVE_TOKENS` of the device where None.

    Raises:
        ConfigError: for a limit of thoughts that the model or ``max_new_tokens`` does not allow.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        renderer: ChatRenderer,
        *,
        revision: str,
        temperature: float = 1.0,
        max_new_tokens: int = 32,
        context_length: int | None = None,
        reuse_cache: bool = True,
        max_thinking_tokens: int | None = None,
        wave_tokens: int | None = None,
    ) -> None:
        self.model = model.eval()
        self.renderer = renderer.stopping_at(ends_of(model))
        self._ends = torch.tensor([renderer.closing_id, *sorted(self.renderer.stop_ids)])
        self.revision = revision
        self.temperature = temperature
        self.max_new_tokens = max_new_tokens
        self.context_length = context_length or positions_of(config_of(model))
        self.reuse_cache = reuse_cache
        self.max_thinking_tokens = max_thinking_tokens
        self.wave_tokens = wave_tokens
        self._thoughts = (
            None
            if max_thinking_tokens is None
            else thought_limit(renderer, max_thinking_tokens, max_new_tokens)
        )
        self.tokens_encoded = 0
        """Tokens fed through the model so far, prompts and observations included."""
        self._decoder: Decoder | None = None

    @property
    def backend(self) -> Mapping[str, str]:
        """See :class:`rlprm.policies.base.LoadedPolicy`."""
        return {"dtype": str(self.model.dtype).removeprefix("torch.")}

    def at_temperature(self, temperature: float) -> HFPolicy:
        """Return a policy of the same weights that samples at another temperature."""
        return HFPolicy(
            self.model,
            self.renderer,
            revision=self.revision,
            temperature=temperature,
            max_new_tokens=self.max_new_tokens,
            context_length=self.context_length,
            reuse_cache=self.reuse_cache,
            max_thinking_tokens=self.max_thinking_tokens,
            wave_tokens=self.wave_tokens,
        )

    @property
    def side_by_side(self) -> int:
        """See :class:`rlprm.policies.base.BoundedPolicy`: ``wave_tokens`` in full contexts."""
        tokens = self.wave_tokens or WAVE_TOKENS["cpu" if self.model.device.type == "cpu" else "gpu"]
        return max(1, tokens // self.context_length)

    @torch.inference_mode()
    def act(self, conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[Completion]:
        """Sample one action per conversation; see :class:`rlprm.policies.base.Policy`.

        Raises:
            ConfigError: if the model does not write from left to right.
            DataError: if the model's output is not finite.
        """
        unique, row_of = _deduplicate(conversations)
        contexts = Contexts(
            unique=[c.token_ids for c in unique],
            row_of=row_of,
            # What was kept ends before the newest action's closing token, which may have been forced.
            known=[c.token_ids[: c.steps[-1].end] if c.steps else None for c in unique],
        )
        draw = Draw(
            torch.from_numpy(uniforms(seeds, self.max_new_tokens)).to(self.model.device),  # once, not a token
            self.temperature,
            self._ends,
            self.renderer.pad_id,
            self._thoughts,
        )
        decoder = self._way()
        done = decoder.decode(self.model, contexts, draw)
        if decoder.shares_contexts:
            self.tokens_encoded += sum(done.context_fed)
            read = _attributed(conversations, row_of, done.context_fed)
        else:
            read = [done.context_fed[row] for row in row_of]
            self.tokens_encoded += sum(read)
        self.tokens_encoded += sum(done.action_fed)
        return [
            Completion(tuple(ids), tuple(logprobs), before + after, () if all(mask) else tuple(mask))
            for ids, logprobs, mask, before, after in zip(
                done.ids, done.logprobs, done.mask, read, done.action_fed, strict=True
            )
        ]

    @torch.inference_mode()
    def reread(self, trajectories: Sequence[Trajectory]) -> Reread:
        """Read stored episodes by one whole forward each; see :class:`rlprm.policies.self_check.Rereads`.

        Keys and values of the episodes in progress are dropped first: memory need not hold both.
        """
        self.clear()
        rows = [
            read_places(
                self.model,
                trajectory.token_ids,
                [place for place, sampled in enumerate(trajectory.action_mask) if sampled],
                temperature=trajectory.temperature,
            )
            for trajectory in trajectories
        ]
        logprobs, dtype = [logprobs for logprobs, _ in rows], rows[0][1]
        return Reread(logprobs, dtype, None if dtype.itemsize >= 4 else self._read_together(trajectories))

    def _read_together(self, trajectories: Sequence[Trajectory]) -> list[list[float]] | None:
        """Read the sampled tokens of episodes by one forward of all: sums are rounded in another order.

        Returns:
            None if the model's logits cannot be computed from its hidden states.
        """
        ids_BL = pad_right([t.token_ids for t in trajectories], 0).to(self.model.device)
        hidden_BLD = body_states(self.model, ids_BL)
        found = []
        for hidden_LD, ids_L, t in zip(hidden_BLD, ids_BL, trajectories, strict=True):
            places_N = torch.tensor([i for i, sampled in enumerate(t.action_mask) if sampled])
            try:
                logprobs_N, _ = read_tokens(
                    self.model, hidden_LD[places_N - 1], ids_L[places_N], temperature=t.temperature or 1.0
                )
            except ConfigError:
                return None
            found.append(logprobs_N.tolist())
        return found

    def clear(self) -> None:
        """Drop the kept keys and values."""
        if self._decoder is not None:
            self._decoder.clear()

    def _way(self) -> Decoder:
        """Return the fastest decoder that is right for the model; found at the first action."""
        if self._decoder is None:
            name = right_way(self.model)
            if name == "kept":
                # Trees belong to what is kept: without, each action has a row of its own, as the reference.
                trees = self.reuse_cache and shares_rows(self.model)
                self._decoder = KeptCache(self.renderer.closing_id, keeps=self.reuse_cache, trees=trees)
            else:
                self._decoder = way_by_name(name, self.renderer.closing_id)
        return self._decoder


def _deduplicate(conversations: Sequence[Conversation]) -> tuple[list[Conversation], list[int]]:
    """Return the conversations with distinct contexts, and for each conversation which of them it equals."""
    index: dict[bytes, int] = {}
    unique: list[Conversation] = []
    row_of = []
    for conversation in conversations:
        row = index.setdefault(sequence_key(conversation.token_ids), len(unique))
        if row == len(unique):
            unique.append(conversation)
        row_of.append(row)
    return unique, row_of


def _attributed(
    conversations: Sequence[Conversation], row_of: Sequence[int], fed_B: Sequence[int]
) -> list[int]:
    """Return the context tokens that count for each conversation.

    Tokens that several conversations of one owner share count for the first of them. Tasks with equal
    prompts share a forward, too, but each of them counts it, so that no task's costs depend on another's.
    """
    counted: set[tuple[Hashable, int]] = set()
    tokens = []
    for conversation, row in zip(conversations, row_of, strict=True):
        key = (conversation.owner, row)
        tokens.append(0 if key in counted else fed_B[row])
        counted.add(key)
    return tokens
