"""Generated parts of the documentation are those that ``python -m tests.docs.write`` would write now."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs import write


@pytest.mark.parametrize("path", write.expected(), ids=lambda path: path.name)
def test_it_is_up_to_date(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == write.expected()[path], "run: python -m tests.docs.write"
