"""Signs that a policy learns to please the PRM instead of solving the task; pure.

Two signs, each compared between windows of iterations, so that the noise of one does not ring:

* **overrating**: the PRM's value at the end of episodes, minus their outcome, is larger than it was in the
  first window, and above 0. The PRM was right about the policy it was trained on; now it is wrong, and
  upwards.
* **divergence**: what the PRM is pleased with has risen since the window with the best outcomes, while the
  outcomes have fallen. That is what it pays an episode; under potential-based rewards, whose sum over an
  episode is settled before it begins, it is the PRM's value at the end.

Both must exceed ``_SIGMAS`` standard errors, taken from how much iterations of a window differ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean, variance

__all__ = ["alarms"]

_SIGMAS = 3.0


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


def _rises(before: Sequence[float], after: Sequence[float]) -> bool:
    """Whether the mean has risen by more than chance would have it."""
    error = math.sqrt(variance(before) / len(before) + variance(after) / len(after))
    difference = mean(after) - mean(before)
    return difference > 1e-9 and difference > _SIGMAS * error
