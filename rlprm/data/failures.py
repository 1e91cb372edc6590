"""Failed episodes, such as one whose server died: stored as data, and counted in a warning."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from rlprm.errors import DataError, EpisodesFailedError
from rlprm.types import StopReason, Trajectory

__all__ = ["has_failed", "has_outcome", "report_failures", "with_outcome"]

log = logging.getLogger(__name__)


def has_failed(trajectory: Trajectory) -> bool:
    """Whether an episode failed; such an episode has a cause, and no outcome."""
    return trajectory.stop is StopReason.ERROR


def has_outcome(trajectory: Trajectory) -> bool:
    """Whether an episode can be learned from: it has neither failed nor is unfinished."""
    if has_failed(trajectory) or trajectory.error is not None:
        return False
    return bool(trajectory.steps) and trajectory.stop is not None


def with_outcome(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """Return those that can be learned from.

    Raises:
        DataError: if there is none.
    """
    usable = [t for t in trajectories if has_outcome(t)]
    if not usable:
        raise DataError(
            f"none of the {len(trajectories)} trajectories can be learned from: all failed, are unfinished, "
            "or have no step"
        )
    return usable


def report_failures(what: str, trajectories: Sequence[Trajectory]) -> int:
    """Count the episodes that failed, and warn of them with their commonest cause.

    Args:
        what: the episodes are, for instance ``"rollouts"``.
        trajectories: finished ones.

    Raises:
        EpisodesFailedError: if there is none that did not fail; a rate of them would be a silent zero.
    """
    causes = Counter(t.error or "no cause given" for t in trajectories if has_failed(t))
    if not causes:
        return 0
    ((cause, times),) = causes.most_common(1)
    if causes.total() == len(trajectories):
        raise EpisodesFailedError(f"{what}: all {len(trajectories)} episodes failed, {times} by: {cause}")
    log.warning(
        "%s: %d of %d episodes failed and count as not solved; %d by: %s",
        what, causes.total(), len(trajectories), times, cause,
    )  # fmt: skip
    return causes.total()
