"""The heads of a reward model, by name."""

from __future__ import annotations

__all__ = ["HEADS", "LIKELIHOOD", "SCALAR"]

SCALAR = "scalar"
LIKELIHOOD = "likelihood"
HEADS = (SCALAR, LIKELIHOOD)
