"""A served PRM that the tests of a module share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from rlprm.data.rendering import ChatRenderer
from tests.toys.serving import save_prm, served


@pytest.fixture(scope="session")
def prm(tiny_folder: Path, renderer: ChatRenderer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a PRM with a random head; never to be written to."""
    return save_prm(tmp_path_factory.mktemp("prm") / "prm", tiny_folder, renderer)


@pytest.fixture(scope="session")
def url(prm: str) -> Iterator[str]:
    with served(prm, max_body=1_000_000, max_steps=100, max_trajectories=50) as found:
        yield found


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as found:
        yield found
