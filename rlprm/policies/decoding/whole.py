"""No cache: every token costs a forward of all before it. The slowest way, and right for all causal models.

Rows are padded on the right. A causal model never looks at later tokens, so padding needs no mask there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlprm.data.batching import pad_right
from rlprm.errors import ConfigError
from rlprm.models.own_logits import own_logits
from rlprm.models.sampled_tokens import body_states, read_tokens
from rlprm.models.unwrap import unwrapped
from rlprm.policies.decoding.base import Contexts, Decoded, Draw, sample_actions

__all__ = ["Whole", "read_places", "teacher_forced"]


class Whole:
    """Feeds everything again for every token."""

    shares_contexts = False

    def decode(self, model: PreTrainedModel, contexts: Contexts, draw: Draw) -> Decoded:
        """See :class:`~rlprm.policies.decoding.base.Decoder`."""
        rows = [list(contexts.unique[row]) for row in contexts.row_of]
        fed = [0] * len(rows)

        def step(next_B: Tensor, alive_B: Tensor) -> Tensor:
            for index, (token, alive) in enumerate(zip(next_B.tolist(), alive_B.tolist(), strict=True)):
                rows[index].append(token)
                fed[index] += len(rows[index]) * alive
            return _logits_after(model, rows)

        ids, logprobs, mask = sample_actions(_logits_after(model, rows), step, draw)
        return Decoded(ids, logprobs, mask, [len(c) for c in contexts.unique], fed)

    def clear(self) -> None:
        """Nothing is kept."""


def _logits_after(model: PreTrainedModel, rows: Sequence[Sequence[int]]) -> Tensor:
    """Return the logits (B, V) after the last token of each row."""
    ids_BL = pad_right(rows, 0).to(model.device)
    logits_BLV: Tensor = model(input_ids=ids_BL, use_cache=False).logits
    last_B = torch.tensor([len(row) - 1 for row in rows], device=logits_BLV.device)
    return logits_BLV[torch.arange(len(rows), device=last_B.device), last_B]


@torch.no_grad()
def teacher_forced(
    model: PreTrainedModel,
    contexts: Sequence[Sequence[int]],
    actions: Sequence[Sequence[int]],
    *,
    temperature: float,
) -> list[list[float]]:
    """Return the log-probabilities of the tokens of each action, by one whole forward.

    Args:
        model: causal language model.
        contexts: token ids before each action.
        actions: token ids.
        temperature: of the sampling distribution; 0 gives the model's own, as greedy decoding does.
    """
    rows = [[*context, *action] for context, action in zip(contexts, actions, strict=True)]
    ids_BL = pad_right(rows, 0).to(model.device)
    logits_BLV = model(input_ids=ids_BL, use_cache=False).logits.float()
    found = []
    for index, (context, action) in enumerate(zip(contexts, actions, strict=True)):
        logits_KV = logits_BLV[index, len(context) - 1 : len(context) + len(action) - 1]
        logprobs_KV = torch.log_softmax(logits_KV / temperature if temperature > 0 else logits_KV, dim=-1)
        chosen = torch.tensor(list(action), device=logprobs_KV.device)
        found.append(logprobs_KV.gather(1, chosen[:, None]).squeeze(1).tolist())
    return found


@torch.no_grad()
def read_places(
    model: PreTrainedModel, ids: Sequence[int], places: Sequence[int], *, temperature: float
) -> tuple[list[float], torch.dtype]:
    """Return the log-probabilities of some tokens of one sequence, by one whole forward.

    Logits are computed at these tokens only, if the model's own can be computed from its hidden states.

    Args:
        model: causal language model.
        ids: the sequence.
        places: of the tokens, each at least 1.
        temperature: of the sampling distribution; 0 gives the model's own, as greedy decoding does.

    Returns:
        The log-probabilities, and the lowest precision that was computed in. Under autocast that is not the
        precision of the weights.
    """
    ids_1L = torch.tensor([list(ids)], device=model.device)
    places_N = torch.tensor(list(places), device=model.device)
    hidden_ND = body_states(model, ids_1L)[0, places_N - 1]
    try:
        logits_dtype = own_logits(unwrapped(model), hidden_ND[:1]).dtype
        logprobs_N, _ = read_tokens(model, hidden_ND, ids_1L[0, places_N], temperature=temperature or 1.0)
    except ConfigError:  # its logits cannot be computed apart
        logits_dtype = model(input_ids=ids_1L[:, :1], use_cache=False).logits.dtype
        (found,) = teacher_forced(model, [ids[: places[0]]], [ids[places[0] :]], temperature=temperature)
        return [found[place - places[0]] for place in places], _lower(logits_dtype, model.dtype)
    return logprobs_N.tolist(), _lower(logits_dtype, model.dtype)


def _lower(a: torch.dtype, b: torch.dtype) -> torch.dtype:
    return a if a.itemsize <= b.itemsize else b
