"""Episodes that cannot be used.

Failed ones, such as one whose server died, are stored as data, and counted in a warning. Episodes whose
tokens were made from text are refused where the sampled tokens themselves are needed.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from rlprm.errors import DataError, EpisodesFailedError, MismatchError
from rlprm.types import StopReason, Trajectory

__all__ = ["has_failed", "has_outcome", "report_failures", "require_exact", "with_outcome"]

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


def require_exact(trajectory: Trajectory, what: str) -> None:
    """Refuse a trajectory whose log-probabilities are not known.

    Args:
        trajectory: to be used.
        what: needs them, for instance ``"the policy's confidence"``.

    Raises:
        MismatchError: if the tokens of its actions were made from text.
    """
    if not trajectory.exact:
        raise MismatchError(
            f"{what} needs the tokens that were sampled and their log-probabilities, but those of task "
            f"{trajectory.task.id!r}, sample {trajectory.sample}, were made from text"
        )
