"""The self-check: some stored log-probabilities of the first wave are read again, in another way.

A policy decodes token by token, with whatever cache is fast for it. What it stores is compared with one whole
forward over the finished episode. A wrong cache, other weights, another temperature or changed logits would
otherwise go into training without a word.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple, Protocol, runtime_checkable

import torch

from rlprm.data.failures import has_failed
from rlprm.errors import MismatchError
from rlprm.policies.base import Policy
from rlprm.policies.decoding.rounding import bound_of, exceeds_rounding
from rlprm.types import Trajectory

__all__ = ["Agreement", "FirstWaveCheck", "Reread", "Rereads", "compare_stored"]

log = logging.getLogger(__name__)
_EPISODES = 8
_ALWAYS = 4
_SHARE = 0.02
"""Of the wave's tokens, which may be read again beyond the first ``_ALWAYS`` episodes."""
_TOKENS = 16_384
"""Which may be read again beyond the first ``_ALWAYS`` episodes."""


class Reread(NamedTuple):
    """Log-probabilities of stored episodes, read again."""

    logprobs: Sequence[Sequence[float | None]]
    """Of the sampled tokens of each episode, in order, under its own sampling distribution. None for a token
    that was not read."""
    dtype: torch.dtype
    """The lowest precision that was computed in."""
    noise: Sequence[Sequence[float]] | None = None
    """The same log-probabilities by another computation that is right, too; None in float32, or if
    there is none. How far the two differ is what the precision alone makes of these episodes."""


@runtime_checkable
class Rereads(Protocol):
    """A policy that can read stored episodes again, in another way than it wrote them.

    A policy behind a server asks the server for the log-probabilities of a finished episode's tokens.
    """

    def reread(self, trajectories: Sequence[Trajectory]) -> Reread | None:
        """Return the log-probabilities of all sampled tokens, or None if the policy cannot know them."""
        ...


class Agreement(NamedTuple):
    """Stored and reread log-probabilities, compared."""

    tokens: int
    mean: float
    """Mean difference, in nats of the model's own logits."""
    largest: float


class FirstWaveCheck:
    """Checks the first wave in which there is something to check, and no other."""

    def __init__(self) -> None:
        self.done = False

    def __call__(self, policy: Policy, trajectories: Sequence[Trajectory]) -> None:
        """Check a wave of a policy, unless one has been checked.

        Raises:
            MismatchError: see :func:`compare_stored`.
        """
        chosen = [] if self.done else _choose(trajectories)
        if not chosen:
            return
        found = compare_stored(policy, chosen)
        self.done = True
        if found is None:
            log.info("the policy gives no probabilities of stored tokens: nothing can be checked")
        else:
            log.info(
                "self-check: %d stored log-probabilities of %d episodes differ by %.1g nats (mean), %.1g "
                "(largest) from one whole forward", found.tokens, len(chosen), found.mean, found.largest,
            )  # fmt: skip


def compare_stored(policy: Policy, trajectories: Sequence[Trajectory]) -> Agreement | None:
    """Read the sampled tokens of episodes again and compare.

    Stored log-probabilities are those of the sampling distribution, whose temperature the trajectory names
    (those of the model itself where decoding was greedy). Tokens that were not sampled have mask 0 and are
    left out. A low temperature divides the logits and their rounding alike. Differences are therefore
    multiplied by the temperature, and one bound serves all temperatures.

    Args:
        policy: has just acted.
        trajectories: of this policy, each with at least one sampled token.

    Returns:
        None if the policy cannot read them again.

    Raises:
        MismatchError: if the difference is more than rounding, with its likely cause.
    """
    again = policy.reread(trajectories) if isinstance(policy, Rereads) else None
    if again is None:
        return None
    parts: dict[str, list[float]] = {name: [] for name in _CAUSES}
    for trajectory, reread in zip(trajectories, again.logprobs, strict=True):
        scale = trajectory.temperature or 1.0
        sampled = [i for i, mask in enumerate(trajectory.action_mask) if mask]
        for place, value in zip(sampled, reread, strict=True):
            if value is None:
                continue
            part = _part_of(trajectory, place, sampled[0])
            parts[part].append(scale * abs(trajectory.logprobs[place] - value))
    differences = [difference for part in parts.values() for difference in part]
    found = Agreement(len(differences), fmean(differences), max(differences))
    noise = _noise(trajectories, again)
    if exceeds_rounding(differences, again.dtype, noise):
        worst = next(
            (name for name, part in parts.items() if part and exceeds_rounding(part, again.dtype, noise)), ""
        )
        raise MismatchError(
            f"self-check: stored log-probabilities differ from one whole forward by {found.mean:.2g} nats "
            f"(mean; largest {found.largest:.2g}; {found.tokens} tokens), allowed for "
            f"{str(again.dtype).removeprefix('torch.')}: {bound_of(again.dtype)}; likely cause: "
            f"{_CAUSES.get(worst, _UNKNOWN)}"
        )
    return found


def _noise(trajectories: Sequence[Trajectory], again: Reread) -> float:
    """Return the mean difference between the two right computations, in nats of the model's own logits."""
    found = [
        (trajectory.temperature or 1.0) * abs(a - b)
        for trajectory, one, other in zip(
            trajectories, again.logprobs, again.noise or again.logprobs, strict=True
        )
        for a, b in zip(one, other, strict=True)
        if a is not None and b is not None
    ]
    return fmean(found)


_CAUSES = {
    "opening": (
        "other weights, another temperature or changed logits, since the first token of an episode differs "
        "already"
    ),
    "message": (
        "keys and values kept within a message are wrong for this architecture, since the first token of an "
        "episode is right and later ones are not"
    ),
    "later": (
        "keys and values kept from turn to turn are wrong for this architecture, since the first message is "
        "right and later ones are not; reuse_cache false does without"
    ),
}
"""Part of an episode → what is likely wrong if its tokens are the first that differ."""
_UNKNOWN = "precision; try dtype float32"


def _part_of(trajectory: Trajectory, place: int, first: int) -> str:
    if place == first:
        return "opening"
    return "message" if place <= trajectory.steps[0].end else "later"


def _choose(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """Return a few episodes of different lengths, the longest first, as many as the budget of tokens allows.

    Long episodes reach a window's edge. Short ones ended early, so that others have holes where they were.
    """
    usable = [t for t in trajectories if not has_failed(t) and any(t.action_mask)]
    usable.sort(key=lambda t: len(t.token_ids), reverse=True)
    count = min(_EPISODES, len(usable))
    spread = [usable[round(i * (len(usable) - 1) / max(1, count - 1))] for i in range(count)]
    spread = [*spread[:1], *spread[:0:-1][:1], *spread[1:-1]]
    chosen: list[Trajectory] = []
    left = min(_TOKENS, _SHARE * sum(len(t.token_ids) for t in usable))
    for trajectory in spread:
        if len(chosen) < _ALWAYS or len(trajectory.token_ids) <= left:
            chosen.append(trajectory)
            left -= len(trajectory.token_ids)
    return chosen
