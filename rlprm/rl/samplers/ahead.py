"""Episodes of the next iteration, which servers run while the trainer learns from the present ones.

With ``max_staleness: 1`` the episodes of iteration *i + 1* are begun as soon as those of iteration *i* are
there, by the weights of iteration *i*, and awaited before the servers get new weights. So each iteration but
the first learns from episodes that are one version old, whatever the clock says, and a resumed run gives the
result of an uninterrupted one. More than one version would bring no more overlap, since servers take new
weights between episodes only.

The update corrects for the older policy by importance weights. The ratio of PPO compares the policy with that
at the start of the update. Each token is weighted by its probability under the latter over that under the
policy that sampled the token (decoupled PPO, Hilton et al., arXiv 2110.00641), cut at ``importance_cap``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from rlprm.runtime.processes import collective
from rlprm.types import EpisodeSetting, Task, Trajectory

__all__ = ["Ahead", "BackgroundSampler"]


class BackgroundSampler(Protocol):
    """A sampler whose episodes do not need the trainer's processor."""

    @collective
    def begin(
        self, jobs: Sequence[tuple[Task, int]], setting: EpisodeSetting
    ) -> Callable[[], list[Trajectory]]:
        """Begin episodes, and return a function that waits for them; every process calls both.

        No other method may be called between both.
        """
        ...


class Ahead:
    """The episodes of one iteration, from their beginning to their use.

    Args:
        sampler: runs them.
        ready: episodes that a checkpoint holds.
    """

    def __init__(self, sampler: BackgroundSampler, ready: list[Trajectory] | None = None) -> None:
        self._sampler, self._ready = sampler, ready
        self._finish: Callable[[], list[Trajectory]] | None = None

    @property
    def ready(self) -> list[Trajectory] | None:
        """Episodes that have been awaited and not used; a checkpoint must keep them."""
        return self._ready

    @collective
    def begin(self, jobs: Sequence[tuple[Task, int]], setting: EpisodeSetting) -> None:
        """Begin the next iteration's episodes with the weights that the sampler has."""
        self._finish = self._sampler.begin(jobs, setting)

    @collective
    def wait(self) -> None:
        """Wait for the episodes that were begun; the sampler may then get other weights."""
        if self._finish is not None:
            finish, self._finish = self._finish, None
            self._ready = finish()

    def take(self) -> list[Trajectory] | None:
        """Return the episodes that are there, to be used; None if there are none."""
        taken, self._ready = self._ready, None
        return taken
