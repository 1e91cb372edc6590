"""One message of the agent, written by a server, with the limit of thoughts that a local policy has, too."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence

import torch

from rlprm.policies.base import Completion, action_seed
from rlprm.policies.decoding.thoughts import ThoughtEnding, ThoughtLimit
from rlprm.policies.server.generate import Generated

__all__ = ["write_message"]

_MARKERS = 8
"""Tokens beyond the limit of a thought that the first request asks for: markers and white space around it."""
Ask = Callable[[Sequence[int], int, int], Awaitable[Generated]]
"""Takes the prompt, the seed and the most tokens."""


async def write_message(
    ask: Ask,
    prompt_ids: Sequence[int],
    *,
    seed: int,
    max_new_tokens: int,
    stop_ids: Collection[int],
    thoughts: ThoughtLimit | None,
) -> Completion:
    """Let a server write a message.

    A thought that reaches its limit is cut there. Its end is written, and the server goes on behind the end.
    Tokens beyond the limit are thrown away: what is kept has the distribution of tokens drawn one by one,
    because the limit is decided by the tokens before.

    Args:
        ask: sends a request.
        prompt_ids: everything before the message.
        seed: of the message; later requests for its parts get seeds derived from this one.
        max_new_tokens: most tokens of the message.
        stop_ids: tokens that end the message.
        thoughts: the limit; None without one.
    """
    ids: list[int] = []
    logprobs: list[float] = []
    mask: list[int] = []
    fed_tokens = 0
    ending = None if thoughts is None else ThoughtEnding(thoughts, 1, torch.device("cpu"))
    while (left := max_new_tokens - len(ids)) > 0:
        most = left if thoughts is None or ids else min(left, thoughts.tokens + _MARKERS)
        part = await ask([*prompt_ids, *ids], action_seed(seed, len(ids)) if ids else seed, most)
        fed_tokens += part.fed_tokens
        kept = len(part.ids) if ending is None else _within_limit(ending, part.ids)
        ids += part.ids[:kept]
        logprobs += part.logprobs[:kept]
        mask += [1] * kept
        if thoughts is not None and ending is not None and kept < len(part.ids):
            forced = thoughts.end_ids.tolist()[: max_new_tokens - len(ids)]
            for _ in forced[1:]:
                ending.next(torch.tensor([0]))
            ids, logprobs, mask = ids + forced, logprobs + [0.0] * len(forced), mask + [0] * len(forced)
        elif part.is_finished:
            break
        if ids[-1] in stop_ids:
            break
    return Completion(tuple(ids), tuple(logprobs), fed_tokens, () if all(mask) else tuple(mask))


def _within_limit(ending: ThoughtEnding, ids: Sequence[int]) -> int:
    """Return how many tokens may be kept before the end of a thought is forced."""
    for kept, token in enumerate(ids):
        _, forced_B = ending.next(torch.tensor([token]))
        if bool(forced_B):
            return kept
    return len(ids)
