"""What a policy is to the rest of the package."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from rlprm.data.conversation import Conversation
from rlprm.data.rendering import ChatRenderer
from rlprm.types import Message

_T = TypeVar("_T")


@dataclass(frozen=True)
class Completion:
    """One sampled action."""

    ids: tuple[int, ...]
    """Token ids; the closing token is among them unless another token or the limit ended the action."""
    logprobs: tuple[float, ...]
    """Log-probability of each under the sampling distribution (the model's own where decoding is greedy); 0
    for a forced token."""
    fed_tokens: int = 0
    """Tokens that went through the policy's forward for this action: the part of the context whose keys and
    values were not kept, and the sampled tokens that were fed back. A context that several conversations of
    one task share counts for the first of them. 0 if no model acted."""
    mask: tuple[int, ...] = ()
    """1 for each sampled token, 0 for one that was forced to end a thought. Empty if all were sampled."""
    error: str | None = None
    """Why the policy could not act. The episode ends as an error; there are no tokens."""
    said: Message | None = None
    """The message, if the policy gave text, not tokens. The ids were made from the text, and no
    log-probabilities are known: all are 0 and mean nothing."""

    @property
    def sampled(self) -> int:
        """Number of sampled tokens."""
        return sum(self.mask) if self.mask else len(self.ids)


class Policy(Protocol):
    """Writes the next action of each of several conversations."""

    renderer: ChatRenderer
    revision: str
    """Identifies the weights."""
    temperature: float
    """0 is greedy."""
    max_new_tokens: int
    context_length: int

    def act(self, conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[Completion]:
        """Sample one action for each conversation.

        The result of a row depends on its conversation and its seed only, not on the other rows.
        """
        ...


class LoadedPolicy(Policy, Protocol):
    """A policy that a stage has loaded, in this process or on servers."""

    model: Any
    """The model, for its sizes; without weights if these are on servers, None if the sizes are not known."""

    @property
    def backend(self) -> Mapping[str, str]:
        """What computes, and in which precision; episodes of several ones do not mix in a folder."""
        ...

    def at_temperature(self, temperature: float) -> LoadedPolicy:
        """Return a policy of the same weights that samples at another temperature."""
        ...

    def clear(self) -> None:
        """Drop whatever is kept from one call to the next."""
        ...


@runtime_checkable
class BoundedPolicy(Protocol):
    """A policy that keeps something of each episode, and so bounds the episodes that run side by side."""

    @property
    def side_by_side(self) -> int:
        """Most episodes that are run at one time, 1 or more."""
        ...


@runtime_checkable
class AsyncPolicy(Protocol):
    """A policy that acts in one conversation while others wait for their environments."""

    async def act_one(self, conversation: Conversation, seed: int) -> Completion:
        """Sample one action, as ``act`` does; runs in a coroutine given to :meth:`submit`."""
        ...

    def submit(self, coroutine: Coroutine[Any, Any, _T]) -> Future[_T]:
        """Start a coroutine that calls ``act_one``."""
        ...


def action_seed(episode_seed: int, turn: int, branch: int = 0) -> int:
    """Seed of one action: a function of the episode, the turn and, in a search, the branch."""
    # A spawn key keeps its place; plain words would let a long seed's second half pass for a turn.
    words = np.random.SeedSequence(episode_seed, spawn_key=(turn, branch)).generate_state(2, np.uint32)
    return int(words[0]) << 31 ^ int(words[1])


def uniforms(seeds: Sequence[int], count: int) -> npt.NDArray[np.float32]:
    """Return ``(len(seeds), count)`` uniform numbers in [0, 1), each row a function of its own seed."""
    return np.stack([np.random.default_rng(seed).random(count, dtype=np.float32) for seed in seeds])
