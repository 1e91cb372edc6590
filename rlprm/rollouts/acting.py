"""A call of a policy that fails in some conversations does not end the others."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from weakref import WeakKeyDictionary

from rlprm.data.conversation import Conversation
from rlprm.errors import RlprmError
from rlprm.policies.base import Completion, Policy
from rlprm.runtime.supervision.memory import is_out_of_memory, release, within_memory

__all__ = ["act", "cause_of", "failed"]

log = logging.getLogger(__name__)
_FIT: WeakKeyDictionary[Policy, int] = WeakKeyDictionary()
"""Conversations that a policy has memory for at one time, if they were once too many."""


def act(policy: Policy, conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[Completion]:
    """Let a policy act; where it fails, the completion has an error.

    If a call of several conversations fails, each is tried alone. If memory runs out, the policy acts in two
    halves of the conversations, one after the other, and never in more at one time from then on.

    Raises:
        OutOfDeviceMemoryError: if the memory is too small for half of the conversations, too.
        Exception: the policy's own, if all of several conversations fail: the cause is no single one of them.
        RlprmError: from the policy, about a setting or an artifact.
    """
    try:
        return _act_in_parts(policy, conversations, seeds)
    except RlprmError:
        raise
    except Exception as error:
        if len(conversations) == 1:
            return [failed(error)]
        done = [act(policy, [one], [seed])[0] for one, seed in zip(conversations, seeds, strict=True)]
        failures = sum(completion.error is not None for completion in done)
        if failures == len(done):
            raise
        log.warning("the policy failed in %d of %d conversations: %s", failures, len(done), cause_of(error))
        return done


def _act_in_parts(
    policy: Policy, conversations: Sequence[Conversation], seeds: Sequence[int]
) -> list[Completion]:
    """Let a policy act for as many conversations at a time as its memory suffices for."""

    def attempt(size: int) -> list[Completion]:
        if size >= len(conversations):
            return policy.act(conversations, seeds)
        done: list[Completion] = []
        for start in range(0, len(conversations), size):
            _clear(policy)  # keys and values of other conversations
            done += policy.act(conversations[start : start + size], seeds[start : start + size])
        return done

    size = len(conversations)
    with suppress(TypeError):  # a policy that cannot be a key is tried in full each time
        size = min(_FIT.get(policy, size), size)
    try:
        return attempt(size)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        # The traceback holds tensors of the attempt until here.
    _clear(policy)
    # The second half is the rest of an odd number: rounded up, two calls suffice.
    done, half = within_memory(attempt, (size + 1) // 2, setting="wave_size", again=False)
    log.warning("out of memory with %d conversations at a time: from here on %d", size, half)
    with suppress(TypeError):
        _FIT[policy] = half
    return done


def _clear(policy: Policy) -> None:
    """Drop the keys and values that a policy keeps, if it keeps any."""
    clear = getattr(policy, "clear", None)
    if clear is not None:
        clear()
    release()


def cause_of(error: BaseException) -> str:
    """Return an error as it is stored with an episode."""
    return f"{type(error).__name__}: {error}"


def failed(error: Exception) -> Completion:
    """Return what stands for an action of a policy that failed."""
    return Completion((), (), error=f"the policy: {cause_of(error)}")
