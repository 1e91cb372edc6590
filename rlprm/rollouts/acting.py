"""A call of a policy that fails in some conversations does not end the others."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from rlprm.data.conversation import Conversation
from rlprm.errors import RlprmError
from rlprm.policies.base import Completion, Policy

__all__ = ["act", "cause_of", "failed"]

log = logging.getLogger(__name__)


def act(policy: Policy, conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[Completion]:
    """Let a policy act; where it fails, the completion has an error.

    If a call of several conversations fails, each is tried alone.

    Raises:
        Exception: the policy's own, if all of several conversations fail: the cause is no single one of them.
        RlprmError: from the policy, about a setting or an artifact.
    """
    try:
        return policy.act(conversations, seeds)
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


def cause_of(error: BaseException) -> str:
    """Return an error as it is stored with an episode."""
    return f"{type(error).__name__}: {error}"


def failed(error: Exception) -> Completion:
    """Return what stands for an action of a policy that failed."""
    return Completion((), (), error=f"the policy: {cause_of(error)}")
