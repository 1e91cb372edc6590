"""What a bfloat16 load of the saved policy loses of what RL has taught it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch

from rlprm.models import zero
from rlprm.models.loading import load_causal_lm
from rlprm.policies.decoding.whole import read_places
from rlprm.types import Trajectory

__all__ = ["LoadRounding", "measure_rounding"]

log = logging.getLogger(__name__)
_EPISODES = 8
_LARGE = 0.25
"""Share of the update's effect, from which on rounding is warned of."""


@dataclass(frozen=True)
class LoadRounding:
    """Mean differences of log-probabilities, in nats a sampled token, at the policy's own temperature."""

    tokens: int
    bfloat16: float
    """Of the saved weights, loaded in bfloat16, from the same weights in float32."""
    update: float
    """Of the saved weights from those before RL, both in float32: the size of what was learned."""


def measure_rounding(folder: str, before: str, trajectories: Sequence[Trajectory]) -> LoadRounding | None:
    """Compare three loads of a policy on some episodes, and log the result.

    Args:
        folder: of the saved policy.
        before: folder or hub id of the policy before RL.
        trajectories: episodes; the first few are read.

    Returns:
        None if there is no episode, or no memory for a second model.
    """
    chosen = trajectories[:_EPISODES]
    if not any(any(t.action_mask) for t in chosen):
        return None
    try:
        trained, rounded, old = (
            _logprobs(path, dtype, chosen)
            for path, dtype in ((folder, "float32"), (folder, "bfloat16"), (before, "float32"))
        )
    except torch.OutOfMemoryError:
        log.warning("what a bfloat16 load loses was not measured: no memory for a second model")
        return None
    found = LoadRounding(len(trained), _mean(rounded, trained), _mean(trained, old))
    is_large = found.bfloat16 > _LARGE * found.update
    log.log(
        logging.WARNING if is_large else logging.INFO,
        "loaded in bfloat16, the saved policy differs from the trained one by %.2g nats a token (mean); the "
        "update itself is %.2g%s", found.bfloat16, found.update,
        ": load it with dtype float32, or keep the adapter apart" if is_large else "",
    )  # fmt: skip
    return found


def _logprobs(path: str, dtype: str, trajectories: Sequence[Trajectory]) -> list[float]:
    with zero.loading_unsharded():
        model = load_causal_lm(path, dtype=dtype).eval()
    found: list[float] = []
    for trajectory in trajectories:
        places = [place for place, sampled in enumerate(trajectory.action_mask) if sampled]
        if places:
            logprobs, _ = read_places(model, trajectory.token_ids, places, temperature=trajectory.temperature)
            found.extend(logprobs)
    return found


def _mean(a: Sequence[float], b: Sequence[float]) -> float:
    return fmean(abs(x - y) for x, y in zip(a, b, strict=True))
