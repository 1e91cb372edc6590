"""What is made once (compiled games) is kept in pytest's cache, not the user's; and AgentGym's servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.toys.agentgym_server import PROTOCOLS, AgentGymServer, serving


@pytest.fixture(scope="session", autouse=True)
def _kept_in_pytests_cache(pytestconfig: pytest.Config) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLPRM_CACHE", str(pytestconfig.cache.mkdir("rlprm")))
        yield


@pytest.fixture(params=PROTOCOLS)
def server(request: pytest.FixtureRequest) -> Iterator[AgentGymServer]:
    with serving(request.param) as running:
        yield running


@pytest.fixture
def textcraft() -> Iterator[AgentGymServer]:
    with serving("textcraft") as running:
        yield running
