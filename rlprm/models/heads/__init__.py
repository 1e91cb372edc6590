"""The heads of a reward model, by name."""

from __future__ import annotations

__all__ = ["HEADS", "LM", "SCALAR"]

SCALAR = "scalar"
LM = "lm"
HEADS = (SCALAR, LM)
