"""A policy that gains success by waiting for a limit instead of ending episodes (``end: declared``); pure.

Success has risen since the first iterations, and more of the gain is undeclared successes than declared
ones. The policy has learned to reach the goal and to wait for a limit, which no reward distinguishes from
ending the episode. The sign needs no PRM.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean, variance

from rlprm.functional.statistics.bootstrap import paired_interval

__all__ = ["WINDOW", "undeclared_alarm", "undeclared_gain"]

WINDOW = 5
"""Iterations that are averaged."""
_SIGMAS = 3.0
_LEVEL = 0.9973
"""Share of a normal distribution within ``_SIGMAS`` standard deviations."""
_UNDECLARED_GAP = 0.05
"""Least rise of the share of undeclared successes that matters."""


def undeclared_alarm(
    success: Sequence[float], declared_success: Sequence[float], *, episodes: int, window: int = WINDOW
) -> dict[str, str]:
    """Return the sign ``undeclared`` with its description, or no sign.

    The sign compares the last window with the first one. The share of undeclared successes
    (``success - declared_success``) must have risen by more than 5 points, by more than ``_SIGMAS`` standard
    errors, and by more than the share of declared successes has risen. Success must have risen, too.

    The standard error is the larger one of two. The first is taken from how much the iterations of a window
    differ; tasks differ between iterations. The second is the standard error of two shares of
    ``window * episodes`` independent episodes each, which keeps small batches quiet if the iterations of a
    window agree by chance.

    Args:
        success: of each iteration so far, share of successful episodes.
        declared_success: of each iteration so far, share of episodes that are successful and that the agent
            itself ended.
        episodes: number of episodes of an iteration.
        window: iterations that are averaged; two windows must have passed.
    """
    if len(success) < 2 * window:
        return {}
    undeclared = [of - declared for of, declared in zip(success, declared_success, strict=True)]
    before, now = undeclared[:window], undeclared[-window:]
    declared_before, declared_now = mean(declared_success[:window]), mean(declared_success[-window:])
    rise, declared_rise = mean(now) - mean(before), declared_now - declared_before
    share = (mean(now) + mean(before)) / 2
    of_episodes = math.sqrt(2 * share * (1 - share) / (window * episodes))
    is_beyond_noise = rise > _SIGMAS * of_episodes and _rises(before, now)
    if not (is_beyond_noise and _is_mostly_undeclared(rise, declared_rise)):
        return {}
    return {"undeclared": _undeclared_text(mean(before), mean(now), declared_before, declared_now)}


def undeclared_gain(
    before: Sequence[float],
    before_declared: Sequence[float],
    after: Sequence[float],
    after_declared: Sequence[float],
) -> str | None:
    """Return the description of the sign ``undeclared`` between the policies before and after RL, or None.

    The conditions are those of :func:`undeclared_alarm`, but the noise is that of tasks. The paired 99.7 %
    interval of the rise of undeclared successes, as wide as ``_SIGMAS`` standard errors, must lie above 0.
    The sign can be seen after a run of fewer than two windows of iterations, too.

    Args:
        before: success of each task before RL.
        before_declared: declared success of each task before RL; the same tasks in the same order.
        after: success of each task after RL.
        after_declared: declared success of each task after RL.
    """
    old, new = (
        [success - declared for success, declared in zip(*pair, strict=True)]
        for pair in ((before, before_declared), (after, after_declared))
    )
    rise, declared_rise = mean(new) - mean(old), mean(after_declared) - mean(before_declared)
    if paired_interval(new, old, level=_LEVEL).low > 0 and _is_mostly_undeclared(rise, declared_rise):
        return _undeclared_text(mean(old), mean(new), mean(before_declared), mean(after_declared))
    return None


def _is_mostly_undeclared(rise: float, declared_rise: float) -> bool:
    """Whether success rose, and more of the rise is undeclared than declared successes."""
    return rise > _UNDECLARED_GAP and rise > declared_rise > -rise


def _undeclared_text(before: float, now: float, declared_before: float, declared_now: float) -> str:
    return (
        f"undeclared successes rose from {before:.2f} to {now:.2f} of all episodes while declared ones went "
        f"from {declared_before:.2f} to {declared_now:.2f}: the policy waits for a limit"
    )


def _rises(before: Sequence[float], after: Sequence[float]) -> bool:
    """Whether the mean has risen by more than chance would have it."""
    error = math.sqrt(variance(before) / len(before) + variance(after) / len(after))
    difference = mean(after) - mean(before)
    return difference > 1e-9 and difference > _SIGMAS * error
