"""What is checked alike of everything a user gives: paths and texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlprm.envs._checks import encodable, user_path
from rlprm.errors import ConfigError
from tests.envs.shared import one_line_at_most


def test_a_home_folder_is_meant_by_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("x data", "~") == tmp_path
    assert user_path("x data", "~/not/there") == tmp_path / "not" / "there"
    assert user_path("x data", "not/there") == Path("not/there")
    (tmp_path / "file").write_text("")
    assert user_path("x data", "~/file/below") == tmp_path / "file" / "below"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "None, allowed: a path"),
        (["a"], r"\['a'\], allowed: a path"),
        ("", "'', allowed: a path"),
        ("~no-such-user/x", "home directory"),
        ("x" * 5_000, "too long"),
        ("x/" * 5_000, "too long"),
        ("a\x00b", "null byte"),
        ("\ud800", "surrogates not allowed"),
    ],
)
def test_what_is_no_path_is_one_short_line(value: Any, reason: str) -> None:
    with pytest.raises(ConfigError, match=rf"^x data: got .*{reason}") as raised:
        user_path("x data", value)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 250


@given(st.one_of(st.text(), st.text(st.characters(categories=["Cs", "Cc"])), st.integers(), st.none()))
def test_anything_is_a_path_or_refused(value: Any) -> None:
    assert one_line_at_most(lambda: user_path("x data", value))


@given(st.text())
def test_texts_are_taken_as_they_are(text: str) -> None:
    assert encodable(text) == text
    with pytest.raises(ValueError, match="surrogate"):
        encodable(text + "\udc00")
