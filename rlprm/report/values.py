"""Values of records as sections read them: what is missing or damaged is left out, never invented."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["in_points", "numbers", "percentages", "read_lines", "read_mapping"]


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the JSON mapping of a file; an empty one if there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the mappings of a file of JSON lines; lines that cannot be read are left out."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            found.append(row)
    return found


def numbers(row: Mapping[str, Any] | None, *names: str) -> str:
    """Return some numbers of a row with two digits; a dash for one that is missing."""
    values = ((row or {}).get(name) for name in names)
    return ", ".join("–" if value is None else f"{value:.2f}" for value in values)


def percentages(rate: float, low: float, high: float) -> str:
    """Return a rate and its interval in %."""
    return f"{100 * rate:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def in_points(difference: float, low: float, high: float) -> str:
    """Return a difference of rates and its interval in points, with signs."""
    return f"{100 * difference:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
