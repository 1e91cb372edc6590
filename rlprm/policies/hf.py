"""A policy from any Hugging Face causal language model with a chat template.

Two modes write the same tokens. ``reuse_cache=False`` encodes every
conversation anew at each turn: the reference. ``reuse_cache=True`` keeps the keys and
values of the previous call and feeds only what was appended since; conversations
that share their whole context (16 rollouts of one task at the first turn, the
branches of a beam) are encoded once.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from itertools import chain

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from rlprm.data.conversation import Conversation
from rlprm.data.rendering import ChatRenderer
from rlprm.errors import DataError
from rlprm.models.prefix_cache import PrefixCache, sequence_key
from rlprm.policies.base import Completion, uniforms


class HFPolicy:
    """Batched sampling from a causal language model.

    Args:
        model: any decoder with ``past_key_values``; put into evaluation mode.
        renderer: of the model's tokenizer. An action ends with its closing token, or with another that
            the model's generation config lists as an end (``<|endoftext|>`` for Qwen2.5-Instruct).
        revision: identifies the weights in stored trajectories.
        temperature: of the sampling distribution; 0 is greedy.
        max_new_tokens: length limit of one action, closing token included.
        context_length: limit of a conversation in tokens; the model's own where None.
        reuse_cache: keep keys and values across turns.
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
    ) -> None:
        self.model = model.eval()
        self.renderer = renderer.stopping_at(_ends_of(model))
        self._ends = torch.tensor([renderer.closing_id, *sorted(self.renderer.stop_ids)])
        self.revision = revision
        self.temperature = temperature
        self.max_new_tokens = max_new_tokens
        self.context_length = context_length or int(model.config.max_position_embeddings)
        self.reuse_cache = reuse_cache
        self.tokens_encoded = 0
        """Tokens fed through the model so far, prompts and observations included."""
        self._prefixes = PrefixCache()

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
        )

    @torch.inference_mode()
    def act(self, conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[Completion]:
        """Sample one action per conversation; see :class:`rlprm.policies.base.Policy`.

        Raises:
            DataError: if the model's output is not finite.
        """
        unique, row_of = _deduplicate(conversations)
        done = self._prefixes.extend(
            self.model,
            [c.token_ids for c in unique],
            # What was kept ends before the newest action's closing token, which may have been forced.
            [c.token_ids[: c.steps[-1].end] if c.steps else None for c in unique],
            pad_id=self.renderer.pad_id,
            logits_to_keep=1,
        )
        self.tokens_encoded += sum(done.fed_B)
        expand = torch.tensor(row_of, device=done.mask_BL.device)
        if len(unique) < len(conversations):
            done.cache.batch_select_indices(expand)
        ids, logprobs, mask_BL = self._decode(
            done.logits[expand, -1], done.cache, done.mask_BL[expand], done.mask_BL.sum(1)[expand], seeds
        )
        if self.reuse_cache:
            said = [_without_closing(row, self.renderer.closing_id) for row in ids]
            sequences = [[*c.token_ids, *row] for c, row in zip(conversations, said, strict=True)]
            self._prefixes.keep(done.cache, mask_BL, sequences)
        read = _attributed(conversations, row_of, done.fed_B)
        return [
            Completion(tuple(i), tuple(p), fed + len(i) - 1)
            for i, p, fed in zip(ids, logprobs, read, strict=True)
        ]

    def clear(self) -> None:
        """Drop the kept keys and values."""
        self._prefixes.clear()

    def _decode(
        self, logits_BV: Tensor, cache: Cache, mask_BL: Tensor, lengths_B: Tensor, seeds: Sequence[int]
    ) -> tuple[list[list[int]], list[list[float]], Tensor]:
        """Sample until every row has ended its action or reached the limit.

        A row that ended early gets columns with mask 0 while the others go on.
        """
        uniforms_BK = torch.from_numpy(uniforms(seeds, self.max_new_tokens)).to(logits_BV.device)
        alive_B = torch.ones(len(seeds), dtype=torch.bool, device=logits_BV.device)
        ends = self._ends.to(logits_BV.device)
        ids: list[Tensor] = []
        logprobs: list[Tensor] = []
        counts_B = torch.zeros_like(lengths_B)
        for k in range(self.max_new_tokens):
            next_B, logprob_B = sample(logits_BV, uniforms_BK[:, k], self.temperature)
            ids.append(next_B)
            logprobs.append(logprob_B)
            counts_B += alive_B
            alive_B = alive_B & ~torch.isin(next_B, ends)
            if k + 1 == self.max_new_tokens or not bool(alive_B.any()):
                break
            mask_BL = torch.cat([mask_BL, alive_B[:, None]], dim=1)
            logits_BV = self.model(
                input_ids=next_B[:, None],
                attention_mask=mask_BL.long(),
                position_ids=lengths_B[:, None],
                past_key_values=cache,
                use_cache=True,
            ).logits[:, -1]
            lengths_B = lengths_B + alive_B
            self.tokens_encoded += int(alive_B.sum())
        ids_BK, logprobs_BK = torch.stack(ids, 1).tolist(), torch.stack(logprobs, 1).tolist()
        if not all(map(math.isfinite, chain.from_iterable(logprobs_BK))):
            raise DataError(
                "the policy's logits are not finite: its weights are damaged, or need dtype float32"
            )
        counts = counts_B.tolist()
        return (
            [row[:n] for row, n in zip(ids_BK, counts, strict=True)],
            [row[:n] for row, n in zip(logprobs_BK, counts, strict=True)],
            mask_BL,
        )


def _ends_of(model: PreTrainedModel) -> set[int]:
    """Return the tokens that end a text, as the model's generation config has them."""
    ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return {ends} if isinstance(ends, int) else set(ends or ())


def sample(logits_BV: Tensor, uniform_B: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Draw one token per row by inverting the cumulative distribution at a given uniform number.

    Args:
        logits_BV: next-token logits.
        uniform_B: numbers in [0, 1).
        temperature: divides the logits; 0 takes the largest and ignores ``uniform_B``.

    Returns:
        Token ids (B,) and their log-probabilities (B,) under ``softmax(logits / temperature)``,
        or under ``softmax(logits)`` where ``temperature`` is 0.
    """
    logits_BV = logits_BV.float()
    logprobs_BV = torch.log_softmax(logits_BV / temperature if temperature > 0 else logits_BV, dim=-1)
    if temperature > 0:
        cumulative_BV = logprobs_BV.exp().cumsum(-1)
        threshold_B1 = (uniform_B * cumulative_BV[:, -1])[:, None]
        ids_B = torch.searchsorted(cumulative_BV, threshold_B1, right=True).squeeze(1)
        ids_B = ids_B.clamp(max=logits_BV.shape[1] - 1)
    else:
        ids_B = logprobs_BV.argmax(-1)
    return ids_B, logprobs_BV.gather(1, ids_B[:, None]).squeeze(1)


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


def _without_closing(ids: list[int], closing_id: int) -> list[int]:
    return ids[:-1] if ids[-1] == closing_id else ids
