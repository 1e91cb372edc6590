"""Published data sets that lie beside the repository on some machines; they are never copied into it."""

from __future__ import annotations

from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_PLACES = (_ROOT / "shared" / "data", _ROOT.parent / "shared" / "data")


def shared_data(name: str) -> Path:
    """Folder of a data set; skips the test where it is not there."""
    for place in _PLACES:
        if (place / name).is_dir():
            return place / name
    pytest.skip(f"there is no shared/data/{name} in the repository or beside it")
