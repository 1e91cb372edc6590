"""Things that score the steps of trajectories: trained models, and baselines that need none."""

from rlprm.scorers.base import Scorer

__all__ = ["Scorer"]
