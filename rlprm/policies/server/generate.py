"""The request and the answer of vLLM's endpoint for token ids, ``/inference/v1/generate``.

Nothing is left to the server: vLLM takes what a request does not name from the model's generation config.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from rlprm.policies.server.client import BadAnswerError

__all__ = [
    "PATH",
    "Generated",
    "generate_request",
    "read_generated",
    "read_prompt_logprobs",
    "sampling_params",
]

PATH = "/inference/v1/generate"
_CLAMPED = -9999.0
"""What vLLM writes for a log-probability that is not finite."""


@dataclass(frozen=True)
class Generated:
    """A part of a message that a server wrote."""

    ids: list[int]
    logprobs: list[float]
    """Of each token, under the sampling distribution."""
    is_finished: bool
    """Whether the last token ended the message; otherwise the limit did."""
    versions: frozenset[str]
    """Versions of the weights that wrote the tokens; empty if the server does not say."""
    fed_tokens: int
    """Tokens that went through a forward: of the prompt those that the prefix cache did not have, and the
    written ones but the last."""


def sampling_params(
    *, temperature: float, seed: int, max_tokens: int, stop_ids: Collection[int], **more: Any
) -> dict[str, Any]:
    """Return every parameter that changes what is sampled.

    Args:
        temperature: 0 is greedy.
        seed: of this request.
        max_tokens: most tokens to write.
        stop_ids: tokens that end the message.
        **more: further parameters of vLLM.
    """
    return {
        "n": 1,
        "temperature": temperature,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "min_tokens": 0,
        "seed": seed,
        "max_tokens": max_tokens,
        "stop_token_ids": sorted(stop_ids),
        "ignore_eos": True,  # the ends are those above, whatever the model's config has
        "detokenize": False,
        "logprobs": 0,
        **more,
    }


def generate_request(model: str, prompt_ids: Sequence[int], params: dict[str, Any]) -> dict[str, Any]:
    """Return the body of a request."""
    return {"model": model, "token_ids": list(prompt_ids), "sampling_params": params, "stream": False}


def read_generated(
    answer: Any, *, max_tokens: int, stop_ids: Collection[int], vocabulary: int | None = None
) -> Generated:
    """Check an answer and return what was written.

    Args:
        answer: the JSON of the server.
        max_tokens: of the request.
        stop_ids: of the request.
        vocabulary: number of tokens, if known.

    Raises:
        BadAnswerError: if the answer is no whole message of the request, naming what is wrong.
    """
    try:
        (choice,) = answer["choices"]
        reason, ids = choice["finish_reason"], choice["token_ids"]
        content = choice["logprobs"]["content"]
        pairs = [(entry["token_id"], entry["logprob"]) for entry in content]
        spans = choice.get("weight_versions") or []
        versions = frozenset(str(span["version"]) for span in spans)
        fed_tokens = _fed_tokens(answer.get("usage") or {}, len(ids))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise BadAnswerError("the answer lacks token ids or log-probabilities") from None
    if reason not in ("stop", "length"):
        raise BadAnswerError(f"the message was not finished: {ascii(reason)[:40]}")
    if not ids or not all(_is_token(token, vocabulary) for token in ids):
        raise BadAnswerError("the answer holds no token ids, or one outside the vocabulary")
    if [token for token, _ in pairs] != list(ids):
        raise BadAnswerError("token ids and log-probabilities do not belong together")
    logprobs = [_checked(value) for _, value in pairs]
    ended = [token in stop_ids for token in ids]
    if any(ended[:-1]) or len(ids) > max_tokens or not (ended[-1] or len(ids) == max_tokens):
        raise BadAnswerError("the message ends at another place than asked for")
    return Generated(list(ids), logprobs, ended[-1], versions, fed_tokens)


def read_prompt_logprobs(answer: Any, ids: Sequence[int]) -> list[float]:
    """Return the model's log-probability of each token of a prompt but the first, which gets 0.

    Raises:
        BadAnswerError: if the answer does not have them.
    """
    try:
        first, *rest = answer["prompt_logprobs"]
        found = [entry[str(token)]["logprob"] for token, entry in zip(ids[1:], rest, strict=True)]
    except (KeyError, TypeError, ValueError):
        raise BadAnswerError("the answer lacks log-probabilities of the prompt") from None
    if first is not None:
        raise BadAnswerError("the first token of a prompt has a log-probability")
    return [0.0, *map(_checked, found)]


def _fed_tokens(usage: dict[str, Any], written: int) -> int:
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return int(usage.get("prompt_tokens", 0)) - int(cached) + written - 1


def _is_token(token: Any, vocabulary: int | None) -> bool:
    return type(token) is int and 0 <= token < (vocabulary or math.inf)


def _checked(value: Any) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value) or value <= _CLAMPED or value > 1e-3:
        raise BadAnswerError(f"{ascii(value)[:40]} is no log-probability; are the weights damaged?")
    return float(value)
