"""A policy whose model stands on one or several vLLM servers.

An episode stays with its server, which has the keys and values of the conversation so far. A request that
fails is sent again with the same seed. An episode whose request was given up ends as an error, and the others
go on. What a server writes with other weights than expected is thrown away: another server writes it again.

The same seeds give the same episodes on one float32 server. Elsewhere the distribution is the same: rounding
depends on what is computed side by side.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import Future
from copy import copy
from typing import Any, TypeVar

import torch

from rlprm.data.conversation import Conversation
from rlprm.data.rendering import ChatRenderer
from rlprm.errors import MismatchError
from rlprm.policies.base import Completion
from rlprm.policies.decoding.thoughts import thought_limit
from rlprm.policies.self_check import Reread
from rlprm.policies.server.client import BadAnswerError, RequestFailedError, Server, Servers, printable
from rlprm.policies.server.generate import (
    PATH,
    Generated,
    generate_request,
    read_generated,
    read_prompt_logprobs,
    sampling_params,
)
from rlprm.policies.server.messages import write_message
from rlprm.policies.server.served import Served
from rlprm.types import Trajectory

__all__ = ["ServerPolicy"]

log = logging.getLogger(__name__)
_T = TypeVar("_T")
_REREAD = 6
"""Tokens of an episode that are read again one by one, at temperatures other than 0 and 1."""


class ServerPolicy:
    """Samples actions on servers.

    Args:
        servers: which serve the same model.
        served: what they serve, see :func:`~rlprm.policies.server.served.look_at`.
        renderer: of the model's tokenizer; knows the tokens that end a message.
        model: the model without its weights, for its sizes.
        revision: identifies the weights in stored trajectories.
        temperature: of the sampling distribution; 0 is greedy.
        max_new_tokens: length limit of one action, closing token included.
        context_length: limit of a conversation in tokens.
        max_thinking_tokens: see :class:`rlprm.policies.hf.HFPolicy`.

    Attributes:
        versions: versions of the weights that may have written a token; any if None. At first the one served.
        name: of the model or adapter that requests are for; at first the base model's.
    """

    def __init__(
        self,
        servers: Servers,
        served: Served,
        renderer: ChatRenderer,
        *,
        model: Any,
        revision: str,
        temperature: float,
        max_new_tokens: int,
        context_length: int,
        max_thinking_tokens: int | None = None,
    ) -> None:
        self.servers, self.served, self.renderer, self.model = servers, served, renderer, model
        self.revision, self.temperature = revision, temperature
        self.max_new_tokens, self.context_length = max_new_tokens, context_length
        self.max_thinking_tokens = max_thinking_tokens
        self.versions = None if served.version is None else frozenset({served.version})
        self.name = served.model
        self._thoughts = (
            None
            if max_thinking_tokens is None
            else thought_limit(renderer, max_thinking_tokens, max_new_tokens)
        )
        self._stop_ids = frozenset({renderer.closing_id, *renderer.stop_ids})
        self._vocabulary = len(renderer.tokenizer)

    @property
    def backend(self) -> Mapping[str, str]:
        """See :class:`rlprm.policies.base.LoadedPolicy`."""
        return {"engine": self.served.engine, "dtype": self.served.dtype}

    def at_temperature(self, temperature: float) -> ServerPolicy:
        """Return a policy of the same weights that samples at another temperature."""
        other = copy(self)
        other.temperature = temperature
        return other

    def with_weights(
        self, *, revision: str, versions: frozenset[str] | None, name: str | None = None
    ) -> ServerPolicy:
        """Return a policy of other weights that the servers have now."""
        other = copy(self)
        other.revision, other.versions, other.name = revision, versions, name or self.name
        return other

    def clear(self) -> None:
        """Do nothing: the servers decide what they keep."""

    def submit(self, coroutine: Coroutine[Any, Any, _T]) -> Future[_T]:
        """See :class:`rlprm.policies.base.AsyncPolicy`."""
        return self.servers.submit(coroutine)

    def act(self, conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[Completion]:
        """Sample one action per conversation, all at once; see :class:`rlprm.policies.base.Policy`.

        Raises:
            ConfigError: if the servers refuse the key.
            MismatchError: if other weights wrote a token than those expected.
            ServersGoneError: if no server could be reached for too long.
        """
        return self.servers.run_all(
            self.act_one(conversation, seed) for conversation, seed in zip(conversations, seeds, strict=True)
        )

    async def act_one(self, conversation: Conversation, seed: int) -> Completion:
        """Sample one action; see :meth:`act`. A request that was given up is a completion with an error."""
        server = conversation.home if isinstance(conversation.home, Server) else None
        here = server or self.servers.choose(_number(conversation))

        async def ask(prompt_ids: Sequence[int], part_seed: int, most: int) -> Generated:
            nonlocal here
            params = sampling_params(
                temperature=self.temperature, seed=part_seed, max_tokens=most, stop_ids=self._stop_ids
            )
            request = generate_request(self.name, prompt_ids, params)

            def read(answer: Any) -> Generated:
                return read_generated(
                    answer, max_tokens=most, stop_ids=self._stop_ids, vocabulary=self._vocabulary
                )

            while True:
                try:
                    generated, here = await self.servers.ask(PATH, request, read, server=here)
                except RequestFailedError as error:
                    if not self._lacks_adapter(error):
                        raise
                    here, cause = error.server or here, f"has lost the adapter {self.name} ({error})"
                else:
                    other = self.other_weights(generated.versions)
                    if other is None:
                        return generated
                    cause = other
                if not self.servers.leave_out(here, cause):
                    raise MismatchError(
                        f"{here.url} {cause}; was the server restarted, or used by another run? "
                        "train-rl hands its weights on again if the same command is given"
                    )

        try:
            return await write_message(
                ask,
                conversation.token_ids,
                seed=seed,
                max_new_tokens=self.max_new_tokens,
                stop_ids=self._stop_ids,
                thoughts=self._thoughts,
            )
        except RequestFailedError as error:
            return Completion((), (), error=f"the policy's server: {error}")
        finally:
            conversation.home = here

    def other_weights(self, versions: frozenset[str]) -> str | None:
        """Return what is wrong with the weights that wrote an answer; None if they are those expected."""
        if self.versions is None or versions <= self.versions:
            return None
        return (
            f"wrote with weights of version {printable(', '.join(sorted(versions)))}, expected: "
            f"{', '.join(sorted(self.versions))}"
        )

    def _lacks_adapter(self, error: RequestFailedError) -> bool:
        """Whether a server refused a request because it was restarted without the adapter."""
        return error.status == 404 and self.name != self.served.model

    def reread(self, trajectories: Sequence[Trajectory]) -> Reread | None:
        """Ask the servers for log-probabilities of stored tokens; see :class:`~..self_check.Rereads`.

        The model's own ones come with the prompt. Under another temperature a server gives them for single
        tokens only, so that a few of each episode are read. The others are None.
        """
        try:
            found = self.servers.run_all(self._read(trajectory) for trajectory in trajectories)
        except RequestFailedError as error:
            log.warning("self-check: no server reads stored tokens again: %s", error)
            return None
        return Reread(found, self.served.torch_dtype or torch.bfloat16)

    async def _read(self, trajectory: Trajectory) -> list[float | None]:
        places = [place for place, sampled in enumerate(trajectory.action_mask) if sampled]
        if trajectory.temperature in (0.0, 1.0):
            params = sampling_params(temperature=1.0, seed=0, max_tokens=1, stop_ids=(), prompt_logprobs=0)
            # A server takes a prompt only if a token more fits.
            ids = trajectory.token_ids[: min(places[-1] + 1, self.served.max_model_len - 1)]
            logprobs, _ = await self.servers.ask(
                PATH,
                generate_request(self.name, ids, params),
                lambda answer: read_prompt_logprobs(answer, ids),
                server=self.servers.choose(),
            )
            return [logprobs[place] if place < len(ids) else None for place in places]
        chosen = {places[round(i * (len(places) - 1) / (_REREAD - 1))] for i in range(_REREAD)}
        return [await self._read_token(trajectory, place) if place in chosen else None for place in places]

    async def _read_token(self, trajectory: Trajectory, place: int) -> float:
        token = trajectory.token_ids[place]
        params = sampling_params(
            temperature=trajectory.temperature, seed=0, max_tokens=1, stop_ids=(), logprobs=2,
            logprob_token_ids=[token, token],  # the first stands beside the sampled one
        )  # fmt: skip

        def read(answer: Any) -> float:
            try:
                top = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
                return next(float(entry["logprob"]) for entry in top if entry["token_id"] == token)
            except (KeyError, IndexError, TypeError, ValueError, StopIteration):
                raise BadAnswerError("the answer lacks the log-probability of a token") from None

        request = generate_request(self.name, trajectory.token_ids[:place], params)
        value, _ = await self.servers.ask(PATH, request, read, server=self.servers.choose())
        return value


def _number(conversation: Conversation) -> int:
    """Return a number that conversations with one opening share, since a server reads the opening once."""
    return zlib.crc32(repr(conversation.owner).encode())
