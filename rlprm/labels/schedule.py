"""Cold start: the first epoch of TD-GAE labels, when the model's values mean nothing yet.

With ``v = 0`` every Â_t would equal the outcome and the progress loss would ask for a
rise of r at *every* step. So the first epoch learns Monte-Carlo returns alone.
(A decision of this project; the paper is silent.)
"""

from __future__ import annotations

from typing import NamedTuple

from rlprm.errors import ConfigError

__all__ = ["EpochSettings", "epoch_settings"]


class EpochSettings(NamedTuple):
    """What the labels and the loss of one epoch use."""

    lam: float
    """λ of the TD-GAE labels."""
    beta: float
    """β, the weight of the progress loss."""


def epoch_settings(epoch: int, *, lam: float, beta: float, cold_start_epochs: int = 1) -> EpochSettings:
    """Return (1, 0) in the first ``cold_start_epochs`` epochs, (λ, β) afterwards.

    Args:
        epoch: the epoch, counted from 1.
        lam: λ after the cold start.
        beta: β after the cold start.
        cold_start_epochs: 0 for a model that already is a PRM.
    """
    if epoch < 1:
        raise ConfigError(f"epochs are counted from 1, got {epoch}")
    if cold_start_epochs < 0:
        raise ConfigError(f"cold_start_epochs must not be negative, got {cold_start_epochs}")
    return EpochSettings(1.0, 0.0) if epoch <= cold_start_epochs else EpochSettings(lam, beta)
