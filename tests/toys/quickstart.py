"""Made-up headline figures of a quickstart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def run_of(seed: int, rates: Mapping[str, float]) -> dict[str, Any]:
    """A run with these success rates in %."""
    return {
        "seed": seed, "environment": "babyai", "test_tasks": 96, "seconds": 540.0, "recipes": "abc",
        "made": {"processor": f"processor {seed}"},
        "figures": {
            name: {"success": rate, "low": rate - 5, "high": rate + 5, "tokens": 1000, "steps": 8.5}
            for name, rate in rates.items()
        },
    }  # fmt: skip
