"""Real token ids for PRM tests: hand-made trajectories, and a trainer that is built in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.prm import toy
from tests.prm.toy import Build


@pytest.fixture
def build(tiny_folder: Path, tmp_path: Path) -> Build:
    """Make trainers whose results go to this test's folder."""
    return toy.builder(tiny_folder, tmp_path)


@pytest.fixture(scope="session")
def builder(tiny_folder: Path) -> Callable[[Path], Build]:
    """Make trainers whose results go to a folder that is named."""
    return lambda output: toy.builder(tiny_folder, output)
