"""Whether servers write with the weights that a trainer has, and if not, what is out of step."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from statistics import fmean

from rlprm.policies.server.client import RequestFailedError, Server, UnreachableError
from rlprm.policies.server.generate import PATH, Generated, generate_request, read_generated, sampling_params
from rlprm.policies.server.policy import ServerPolicy

__all__ = ["out_of_step"]

Read = Callable[[Sequence[int], Sequence[int]], list[float]]
"""Takes token ids and places; returns the trainer's log-probabilities of the tokens there."""
_TOKENS = 8


def out_of_step(
    policy: ServerPolicy, prompts: Sequence[Sequence[int]], read: Read, *, bound: float
) -> str | None:
    """Let every server write a few tokens, and compare their log-probabilities.

    A server that cannot be reached, or was restarted with other weights, is left out if there are others.

    Args:
        policy: on the servers.
        prompts: token ids. Those that servers have read before show a cache that is left from other weights.
        read: by the trainer.
        bound: largest mean difference in nats, of the model's own logits.

    Returns:
        What differs and its likely cause; None if all servers are in step.
    """
    for server in policy.servers.all:
        for prompt in prompts:
            if len(prompt) >= policy.context_length or not server.has_weights:
                continue
            try:
                written = policy.servers.run(_write(policy, server, prompt, fresh=False))
                cause = policy.other_weights(written.versions)
                if cause is not None and policy.servers.leave_out(server, cause):
                    continue
                difference = _difference(policy, prompt, written, read)
                if difference <= bound:
                    continue
                fresh = policy.servers.run(_write(policy, server, prompt, fresh=True))
            except UnreachableError as error:
                policy.servers.leave_out(server, str(error))
                continue
            except RequestFailedError as error:
                return f"{server.url} did not answer: {error}"
            cause = "weights, adapter or temperature of the server are not the trainer's"
            if _difference(policy, prompt, fresh, read) <= bound:
                cause = "the server keeps keys and values of other weights in its prefix cache"
            return (
                f"log-probabilities of {server.url} differ from the trainer's by {difference:.2g} nats a "
                f"token (mean), allowed: {bound:.2g}; likely cause: {cause}"
            )
    return None


async def _write(policy: ServerPolicy, server: Server, prompt: Sequence[int], *, fresh: bool) -> Generated:
    """Let a server write, with its prefix cache or past it."""
    most = min(_TOKENS, policy.context_length - len(prompt))
    params = sampling_params(temperature=policy.temperature, seed=0, max_tokens=most, stop_ids=())
    request = generate_request(policy.name, prompt, params)
    if fresh:
        request["cache_salt"] = uuid.uuid4().hex
    generated, _ = await policy.servers.ask(
        PATH,
        request,
        lambda answer: read_generated(answer, max_tokens=most, stop_ids=()),
        server=server,
        elsewhere=False,
        waits=False,
    )
    return generated


def _difference(policy: ServerPolicy, prompt: Sequence[int], written: Generated, read: Read) -> float:
    ids = [*prompt, *written.ids]
    own = read(ids, range(len(prompt), len(ids)))
    scale = policy.temperature or 1.0
    return scale * fmean(abs(a - b) for a, b in zip(own, written.logprobs, strict=True))
