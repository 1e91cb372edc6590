"""The real server of ``tests/policies/server``, whose chat endpoint these tests ask, too."""

from __future__ import annotations

from tests.policies.server.conftest import vllm

__all__ = ["vllm"]
