"""Tokens through the forwards of a policy, worked out from stored trajectories.

A policy that keeps its keys and values feeds every token of a conversation at most once: prompts and
observations when it is to act, and each sampled token but the newest while it acts. Episodes of one task
that share their whole context share the forward over the context; sampled tokens are fed for each episode
apart. The numbers therefore follow from the token ids and need not be stored:

    turn t reads     start_t - (start_{t-1} + sampled_{t-1} - 1)    tokens, once for all that share them
    turn t samples   sampled_t - 1                                  tokens more

A trajectory by itself costs ``start_T + sampled_T - 1`` tokens. ``Completion.fed_tokens`` counts the same
while a policy acts.

An endpoint counts in its own tokens and keeps what it likes. Its counts are stored with the trajectory and
taken as they are; no part of them is shared.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Collection, Hashable, Iterator, Sequence

from rlprm.functional.best_of_n import expected_cost
from rlprm.types import Trajectory

__all__ = ["expected_fed_tokens", "fed_tokens", "shared_tokens"]


def fed_tokens(trajectories: Sequence[Trajectory]) -> list[int]:
    """Return the tokens that each trajectory sent through the policy.

    Args:
        trajectories: of any tasks. Those of one task ran side by side; what several of them share counts
            for the first.
    """
    seen: set[Hashable] = set()
    counts = []
    for trajectory in trajectories:
        if trajectory.fed_tokens is not None:
            counts.append(trajectory.fed_tokens)
            continue
        count = 0
        for context, read, sampled in _turns(trajectory):
            count += sampled + (0 if context in seen else read)
            seen.add(context)
        counts.append(count)
    return counts


def expected_fed_tokens(row: Sequence[Trajectory], k: int) -> float:
    """Return the expected tokens of k trajectories drawn from the n of one task, without replacement.

    Raises:
        ConfigError: unless ``1 <= k <= n``.
    """
    return expected_cost(len(row), k, shared_tokens(row))


def shared_tokens(row: Sequence[Trajectory], accepted: Collection[int] = ()) -> Counter[tuple[int, int]]:
    """Return how many tokens are fed once for how many trajectories of a task.

    Args:
        row: the trajectories.
        accepted: places of those at which sampling stops, see ``best_of_n.expected_cost``.

    Returns:
        (unaccepted, accepted) trajectories that share tokens → the tokens.
    """
    readers: dict[Hashable, list[int]] = {}
    lengths: dict[Hashable, int] = {}
    tokens = Counter[tuple[int, int]]()
    for place, trajectory in enumerate(row):
        kind = int(place in accepted)
        if trajectory.fed_tokens is not None:
            tokens[1 - kind, kind] += trajectory.fed_tokens
            continue
        for context, read, sampled in _turns(trajectory):
            tokens[1 - kind, kind] += sampled
            readers.setdefault(context, [0, 0])[kind] += 1
            lengths[context] = read
    for context, (unaccepted, of_accepted) in readers.items():
        tokens[unaccepted, of_accepted] += lengths[context]
    return tokens


def _turns(trajectory: Trajectory) -> Iterator[tuple[Hashable, int, int]]:
    """Yield, for each turn, what identifies its context, the tokens read and the sampled tokens fed.

    A digest stands for the context. The contexts themselves would take gigabytes for long conversations.
    """
    known = hashed = 0
    context = hashlib.sha256(f"{trajectory.task.environment}\n{trajectory.task.id}\n".encode())
    for step in trajectory.steps:
        # A forced end of a thought goes through the forward, too.
        sampled = max(trajectory.message_end(step) - step.start - 1, 0)
        context.update(array("I", trajectory.token_ids[hashed : step.start]).tobytes())
        yield context.digest(), step.start - known, sampled
        known, hashed = step.start + sampled, step.start
