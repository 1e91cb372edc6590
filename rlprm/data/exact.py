"""Trajectories whose tokens were made from text: refused where the sampled tokens themselves are needed."""

from __future__ import annotations

from rlprm.errors import MismatchError
from rlprm.types import Trajectory

__all__ = ["require_exact"]


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
