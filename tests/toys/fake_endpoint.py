"""A chat endpoint with a toy in place of the model, for faults that a real one shows rarely."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rlprm.policies.base import uniforms
from tests.toys import corridor
from tests.toys.fake_vllm import FakeVLLM, Reply, serving

KEY = "sk-a-key-that-is-secret"


class FakeEndpoint(FakeVLLM):
    """Says one of the corridor's actions, as the seed decides; each fault spoils one answer, in order.

    Args:
        key: that requests must have.
        limit: name of the length limit; the other one is refused.
    """

    def __init__(self, *, key: str | None = None, limit: str = "max_tokens") -> None:
        super().__init__(key=key)
        self.limit = limit
        self.message_of: dict[str, Any] = {}
        """Parts of every message beside its text."""
        self.usage: dict[str, Any] | None = {"prompt_tokens": 100, "completion_tokens": 7}

    def text(self, body: dict[str, Any]) -> str:
        """Return what a request is answered with."""
        drawn = 0.0 if body["temperature"] == 0 else float(uniforms([body["seed"]], 1)[0, 0])
        return corridor.ACTIONS[int(drawn * len(corridor.ACTIONS))]

    def answer(self, path: str, body: Any) -> Reply:
        """Answer any request."""
        self.paths.append(path)
        if not path.endswith("/chat/completions"):
            reply = Reply({"detail": "Not Found"})
            reply.status = 404
            return reply
        self.requests.append(body)
        message = {"role": "assistant", "content": self.text(body), **self.message_of}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        reply = Reply({"model": "toy-2026", "choices": [choice], "usage": self.usage})
        if self.limit not in body:
            said = f"Unsupported parameter: use '{self.limit}' instead."
            reply.status, reply.content = 400, {"error": {"message": said}}
        elif self.faults:
            self.faults.pop(0)(reply)
        return reply


@contextmanager
def answering(fake: FakeEndpoint) -> Iterator[FakeEndpoint]:
    """Run an endpoint on a free port; its base address is ``fake.url`` with ``/v1``."""
    with serving(fake):
        fake.url = f"{fake.url}/v1"
        yield fake
