"""A policy whose model answers at a chat endpoint.

The conversation is sent as messages. The answer is text. The named tokenizer makes token ids of the text, so
that a PRM can read them. There are no probabilities. A request that fails is sent again with the same seed.
An episode whose request was given up ends as an error, and the others go on.
"""

from __future__ import annotations

import logging
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import Future
from copy import copy
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from rlprm.data.conversation import Conversation
from rlprm.data.rendering import ChatRenderer
from rlprm.errors import ChatTemplateError, ConfigError
from rlprm.policies.base import Completion
from rlprm.policies.openai.answer import Answer, Usage, read_answer, said_of
from rlprm.policies.openai.costs import Costs
from rlprm.policies.openai.request import LIMITS, PATH, chat_messages, seed_of
from rlprm.policies.openai.settings import KEY
from rlprm.policies.server.client import Kind, RequestFailedError, Servers
from rlprm.runtime.addresses import is_loopback

__all__ = ["EndpointPolicy", "kind_of"]

log = logging.getLogger(__name__)
_T = TypeVar("_T")


def kind_of(address: str) -> Kind:
    """Return what differs from a server of one's own. Messages do not name the address."""
    is_here = is_loopback(urlsplit(address).hostname or "")
    # An endpoint need not list its models: any answer but an error of the server shows that it is there.
    return Kind("endpoint", KEY, "/models", 500, "the endpoint", uses_proxies=not is_here)


@dataclass
class _Dialect:
    """What was found out about the endpoint; shared by the policies of all temperatures."""

    limit: str = LIMITS[0]


class EndpointPolicy:
    """Asks an endpoint for actions.

    Args:
        servers: the endpoint.
        name: of the model there.
        kwargs: further parameters of each request.
        renderer: of the named tokenizer.
        revision: identifies the policy in stored trajectories.
        temperature: is sent; 0 is greedy.
        max_new_tokens: is sent; in the endpoint's tokens, those of thoughts included.
        context_length: limit of a conversation in tokens of the named tokenizer.
    """

    model: Any = None
    """Not here, and of unknown size."""

    def __init__(
        self,
        servers: Servers,
        *,
        name: str,
        kwargs: Mapping[str, Any],
        renderer: ChatRenderer,
        revision: str,
        temperature: float,
        max_new_tokens: int,
        context_length: int,
    ) -> None:
        self.servers, self.name, self.kwargs = servers, name, dict(kwargs)
        self.renderer, self.revision, self.temperature = renderer, revision, temperature
        self.max_new_tokens, self.context_length = max_new_tokens, context_length
        self.costs = Costs()
        self._dialect = _Dialect()

    @property
    def backend(self) -> Mapping[str, str]:
        """See :class:`rlprm.policies.base.LoadedPolicy`."""
        return {"engine": "endpoint"}

    def at_temperature(self, temperature: float) -> EndpointPolicy:
        """Return a policy of the same model that samples at another temperature."""
        other = copy(self)  # shares the connection and the costs
        other.temperature = temperature
        return other

    def clear(self) -> None:
        """Do nothing: the endpoint decides what it keeps."""

    def submit(self, coroutine: Coroutine[Any, Any, _T]) -> Future[_T]:
        """See :class:`rlprm.policies.base.AsyncPolicy`."""
        return self.servers.submit(coroutine)

    def act(self, conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[Completion]:
        """Sample one action per conversation, all at once; see :class:`rlprm.policies.base.Policy`.

        Raises:
            ConfigError: if the endpoint refuses the key, or has no such model.
            ServersGoneError: if the endpoint could not be reached, or was busy, for too long.
        """
        return self.servers.run_all(
            self.act_one(conversation, seed) for conversation, seed in zip(conversations, seeds, strict=True)
        )

    async def act_one(self, conversation: Conversation, seed: int) -> Completion:
        """Sample one action; see :meth:`act`. A request that was given up is a completion with an error."""
        try:
            answer = await self._ask(self._request(conversation, seed))
            self.costs.add(answer.usage, answer.model)
            said, ids = said_of(answer, conversation.renderer)
        except RequestFailedError as error:
            return Completion((), (), error=f"the policy: {error}")
        except ChatTemplateError as error:
            cause = self.servers.quote(str(error))
            return Completion((), (), error=f"the policy: its message cannot be written in tokens: {cause}")
        # Without the endpoint's count, that of the named tokenizer is the best there is.
        usage = answer.usage or Usage(len(conversation), len(ids))
        return Completion(tuple(ids), (0.0,) * len(ids), usage.fed, said=said)

    def _request(self, conversation: Conversation, seed: int) -> dict[str, Any]:
        tools = conversation.renderer.tools
        return {
            **self.kwargs,
            "model": self.name,
            "messages": chat_messages(conversation.messages, conversation.renderer),
            "temperature": self.temperature,
            "seed": seed_of(seed),
            **({} if tools is None else {"tools": [tool.schema() for tool in tools.tools]}),
        }

    async def _ask(self, request: dict[str, Any]) -> Answer:
        """Send a request, with the name of the length limit that the endpoint knows.

        Raises:
            ConfigError: if there is no such endpoint or model.
            RequestFailedError: see :meth:`rlprm.policies.server.client.Servers.ask`.
        """
        while True:
            limit = self._dialect.limit
            try:
                answer, _ = await self.servers.ask(
                    PATH,
                    {**request, limit: self.max_new_tokens},
                    lambda found: read_answer(found, self.servers.quote),
                    server=self.servers.all[0],
                )
                return answer
            except RequestFailedError as error:
                if error.status == 404:
                    raise ConfigError(f"endpoint, endpoint_model: {error}") from None
                # Newer models refuse the older name, and name the new one.
                if error.status != 400 or limit == LIMITS[1] or LIMITS[1] not in str(error):
                    raise
                if self._dialect.limit == limit:
                    log.info("the endpoint takes %s", LIMITS[1])
                self._dialect.limit = LIMITS[1]
