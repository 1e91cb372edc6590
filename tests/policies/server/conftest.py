"""The real server, one test at a time, with the weights it began with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rlprm.policies.server.client import Patience, Servers
from rlprm.policies.server.sync import push_weights
from tests import vllm_server
from tests.vllm_server import RealServer

BASE = "default"


@pytest.fixture
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    folder = vllm_server.shared_folder(tmp_path_factory.getbasetemp())
    with vllm_server.lock_of(folder):
        server = vllm_server.start(folder)
        servers = Servers([server.url], patience=Patience(timeout=120.0, without_server=20.0))
        servers.run(push_weights(servers, server.model, BASE))
        yield server
