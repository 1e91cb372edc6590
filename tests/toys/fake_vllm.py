"""A server with vLLM's endpoints and a toy in place of the model, for faults that a real one shows rarely."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from rlprm.policies.base import uniforms
from tests.toys import agents, corridor

Fault = Callable[["Reply"], None]
"""Changes an answer before it is sent."""
MODEL, VERSION = "toy", "v1"
_CHANGES = frozenset(
    {"/pause", "/resume", "/collective_rpc", "/reset_prefix_cache", "/update_weight_version",
     "/v1/load_lora_adapter", "/v1/unload_lora_adapter"}
)  # fmt: skip


def fault(**changes: Any) -> Fault:
    """Return a fault that changes attributes of an answer."""

    def spoil(reply: Reply) -> None:
        for name, value in changes.items():
            setattr(reply, name, value)

    return spoil


def of_choice(**changes: Any) -> Fault:
    """Return a fault that changes the generated message."""
    return lambda reply: reply.choice.update(changes)


class Reply:
    """An answer of the server, before it is sent."""

    def __init__(self, content: Any) -> None:
        self.status = 200
        self.content = content
        self.raw: bytes | None = None
        """Sent instead of the content."""
        self.headers: dict[str, str] = {}
        self.wait = 0.0
        self.drop = False
        """Close the connection without an answer."""

    @property
    def choice(self) -> dict[str, Any]:
        """The generated message."""
        found: dict[str, Any] = self.content["choices"][0]
        return found


class FakeVLLM:
    """The state of a server; :func:`serving` runs it.

    Each fault spoils one answer of the endpoint for token ids, in order. A message is one of the corridor's
    actions, as the seed decides.
    """

    def __init__(self, *, raw_logprobs: bool = False, key: str | None = None) -> None:
        self.faults: list[Fault] = []
        self.requests: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.raw_logprobs, self.key = raw_logprobs, key
        self.version, self.model, self.max_model_len = VERSION, MODEL, 4096
        self.adapters: set[str] = set()
        self.url = ""
        self.is_gone = False
        """Connections that are open end, too."""
        self.stop: Callable[[], None] = lambda: None

    def message(self, body: dict[str, Any]) -> list[int]:
        """Return the tokens that a request is answered with."""
        params = body["sampling_params"]
        drawn = 0.0 if params["temperature"] == 0 else float(uniforms([params["seed"]], 1)[0, 0])
        text = corridor.ACTIONS[int(drawn * len(corridor.ACTIONS))]
        ids = list(agents.renderer().action_ids(text))
        if not params["stop_token_ids"]:  # nothing ends the message before its limit
            ids *= params["max_tokens"]
        return ids[: params["max_tokens"]]

    def generate(self, body: dict[str, Any]) -> Reply:
        """Answer a request for tokens."""
        self.requests.append(body)
        if body["model"] not in {self.model, *self.adapters}:
            return _not_found(f"The model `{body['model']}` does not exist.")
        params, ids = body["sampling_params"], self.message(body)
        scale = 1.0 if self.raw_logprobs else 1.0 / (params["temperature"] or 1.0)
        content = [
            {
                "token_id": token,
                "logprob": -1.0,
                "top_logprobs": [{"token_id": t, "logprob": -scale * t} for t in (1, 2, 3)],
            }
            for token in ids
        ]
        choice = {
            "finish_reason": "stop" if ids[-1] in params["stop_token_ids"] else "length",
            "token_ids": ids,
            "logprobs": {"content": content},
            "weight_versions": [{"version": self.version, "start": 0, "end": len(ids)}],
        }
        usage = {"prompt_tokens": len(body["token_ids"]), "prompt_tokens_details": {"cached_tokens": 2}}
        prompt = [{str(token): {"logprob": -1.0}} for token in body["token_ids"][1:]]
        reply = Reply({"choices": [choice], "usage": usage, "prompt_logprobs": [None, *prompt]})
        if self.faults:
            self.faults.pop(0)(reply)
        return reply

    def answer(self, path: str, body: Any) -> Reply:
        """Answer any request."""
        self.paths.append(path)
        if path == "/v1/models":
            entry = {"id": self.model, "parent": None, "max_model_len": self.max_model_len}
            return Reply({"data": [entry]})
        if path == "/inference/v1/generate":
            return self.generate(body)
        known = {
            "/health": {},
            "/version": {"version": "0.0"},
            "/weight_info": {"weight_version": self.version},
        }
        if path in known:
            return Reply(known[path])
        return self.change(path, body) if path in _CHANGES else _not_found("Not Found")

    def change(self, path: str, body: Any) -> Reply:
        """Answer a request that hands on weights."""
        if path == "/update_weight_version":
            self.version = body["new_version"]
        elif path == "/v1/load_lora_adapter":
            self.adapters.add(body["lora_name"])
        elif path == "/v1/unload_lora_adapter":
            self.adapters.discard(body["lora_name"])
        return Reply({})

    def forget(self) -> None:
        """Have the first weights and no adapter, as after a restart."""
        self.version = VERSION
        self.adapters.clear()


def _not_found(what: str) -> Reply:
    reply = Reply({"error": {"message": what}})
    reply.status = 404
    return reply


@contextmanager
def serving(fake: FakeVLLM) -> Iterator[FakeVLLM]:
    """Run a server on a free port of this machine; ``fake.stop()`` ends it early."""
    server = _listen(fake, 0)
    fake.url = f"http://127.0.0.1:{server.server_port}"
    fake.stop = lambda: _close(fake, server)
    try:
        yield fake
    finally:
        fake.stop()


def restarted(fake: FakeVLLM) -> None:
    """Run a server again on the port it had."""
    server = _listen(fake, int(fake.url.rpartition(":")[2]))
    fake.stop = lambda: _close(fake, server)
    fake.is_gone = False


def _close(fake: FakeVLLM, server: ThreadingHTTPServer) -> None:
    fake.is_gone = True
    server.shutdown()
    server.server_close()


def _listen(fake: FakeVLLM, port: int) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._reply(None)

        def do_POST(self) -> None:
            length = int(self.headers.get("content-length", 0))
            self._reply(json.loads(self.rfile.read(length) or b"{}"))

        def _reply(self, body: Any) -> None:
            reply = fake.answer(self.path.partition("?")[0], body)
            if fake.key and self.headers.get("authorization") != f"Bearer {fake.key}":
                reply.status, reply.content = 401, {"error": "Unauthorized"}
            if reply.wait:
                threading.Event().wait(reply.wait)
            if reply.drop or fake.is_gone:
                self.close_connection = True
                return
            data = json.dumps(reply.content).encode() if reply.raw is None else reply.raw
            self.send_response(reply.status)
            self.send_header("content-length", str(len(data)))
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    class Listening(ThreadingHTTPServer):
        request_queue_size = 256  # more connections at one time than a test has

    server = Listening(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server
