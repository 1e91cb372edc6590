"""What the tests of endpoints share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlprm.policies.config import PolicyConfig
from rlprm.policies.openai.policy import EndpointPolicy, kind_of
from rlprm.policies.server.client import Patience, Servers
from rlprm.types import EpisodeSetting
from tests.toys import agents
from tests.toys.fake_endpoint import FakeEndpoint

CHAT = EpisodeSetting(round_limit=4)
QUICK = Patience(timeout=1.0, attempts=3, without_server=2.0, pause=0.01)


def asking(
    fake: FakeEndpoint, *, patience: Patience = QUICK, key: str | None = None, **changes: Any
) -> EndpointPolicy:
    settings = {
        "name": "toy", "kwargs": {}, "renderer": agents.renderer(), "revision": "endpoint:toy",
        "temperature": 1.0, "max_new_tokens": 16, "context_length": 2048,
    }  # fmt: skip
    servers = Servers([fake.url], key=key, patience=patience, kind=kind_of(fake.url))
    return EndpointPolicy(servers, **{**settings, **changes})  # type: ignore[arg-type]


def configured(folder: Path, **changes: Any) -> PolicyConfig:
    settings: dict[str, Any] = {
        "model": str(folder), "endpoint": "http://127.0.0.1:9/v1", "endpoint_model": "toy",
        "context_length": 512,
    }  # fmt: skip
    return PolicyConfig(**{**settings, **changes})
