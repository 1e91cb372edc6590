"""What tests of several environments share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import strategies as st

from rlprm.errors import RlprmError

_ROOT = Path(__file__).parents[2]
_PLACES = (_ROOT / "shared" / "data", _ROOT.parent / "shared" / "data")

any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)
"""Whatever a JSON file may hold."""

# What may be given for a setting: of every type, and what looks like a path but is none.
any_value = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-3, 3),
        st.integers(),
        st.floats(),
        st.text(max_size=8),
        st.sampled_from(["~no-such-user/x", "~", "x" * 5_000, "x/" * 3_000, "\x00", "\ud800"]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


def shared_data(name: str) -> Path:
    """Folder of a published data set beside the repository, never copied into it; skips the test if none."""
    for place in _PLACES:
        if (place / name).is_dir():
            return place / name
    pytest.skip(f"there is no shared/data/{name} in the repository or beside it")


def one_line_at_most(function: Callable[[], object]) -> bool:
    """Whether a call succeeds, or fails with one line that is meant for the user; any other error passes."""
    try:
        function()
    except RlprmError as error:
        return "\n" not in str(error)
    return True
