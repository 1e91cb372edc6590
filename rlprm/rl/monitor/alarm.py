"""Signs that a policy exploits its reward instead of solving the task; pure.

Two signs of a policy that learns to please the PRM, each compared between windows of iterations, so that the
noise of one does not ring:

* **overrating**: the PRM's value at the end of episodes, minus their outcome, is larger than it was in the
  first window, and above 0. The PRM was right about the policy it was trained on; now it is wrong, and
  upwards.
* **divergence**: what the PRM is pleased with has risen since the window with the best outcomes, while the
  outcomes have fallen. That is what it pays an episode; under potential-based rewards, whose sum over an
  episode is settled before it begins, it is the PRM's value at the end.

Both must exceed ``_SIGMAS`` standard errors, taken from how much iterations of a window differ.

A third sign needs no PRM (``end: declared``):

* **undeclared**: success has risen since the first window, and more of the gain is undeclared successes than
  declared ones. The policy has learned to reach the goal and to wait for a limit, which no reward
  distinguishes from ending the episode.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean, variance

from rlprm.functional.statistics.bootstrap import paired_interval

__all__ = ["alarms", "undeclared_alarm", "undeclared_gain"]

_SIGMAS = 3.0
_LEVEL = 0.9973
"""Share of a normal distribution within ``_SIGMAS`` standard deviations."""
_UNDECLARED_GAP = 0.05
"""Least rise of the share of undeclared successes that matters."""


def alarms(
    overrating: Sequence[float],
    pleased: Sequence[float],
    outcome: Sequence[float],
    *,
    window: int,
    gap: float,
    measure: str = "pay for an episode",
) -> dict[str, str]:
    """Return each sign with its description; no sign before two windows have passed.

    Args:
        overrating: of each iteration so far, mean of ``v_T`` minus outcome.
        pleased: of each iteration so far, the PRM's share of an episode's reward, or its value at the end.
        outcome: mean outcome.
        window: iterations that are averaged; two windows must have passed.
        gap: how much overrating may grow.
        measure: which of the two ``pleased`` is, in words.
    """
    signs = {}
    if len(overrating) >= 2 * window:
        before, now = overrating[:window], overrating[-window:]
        # One that underrated at first, and is right now, has not been fooled.
        if mean(now) > 0 and mean(now) - mean(before) > gap and _rises(before, now):
            signs["overrating"] = (
                f"the PRM overrates finished episodes by {mean(now):.2f}, at first by {mean(before):.2f}"
            )
    if len(outcome) >= 2 * window:
        starts = range(len(outcome) - 2 * window + 1)
        best = max(starts, key=lambda start: mean(outcome[start : start + window]))
        paid_then, paid_now = pleased[best : best + window], pleased[-window:]
        then, now = outcome[best : best + window], outcome[-window:]
        if _rises(paid_then, paid_now) and _rises(now, then):
            signs["divergence"] = (
                f"the PRM's {measure} rose from {mean(paid_then):.2f} to {mean(paid_now):.2f} while the "
                f"outcome fell from {mean(then):.2f} to {mean(now):.2f}"
            )
    return signs


def undeclared_alarm(
    success: Sequence[float], declared_success: Sequence[float], *, window: int, episodes: int
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
        window: iterations that are averaged; two windows must have passed.
        episodes: number of episodes of an iteration.
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
