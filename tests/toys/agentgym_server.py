"""AgentGym's servers in a thread, on worlds of our own, and faults on demand.

They speak as the originals do, quirks included: BabyAI and TextCraft report errors with status 200, BabyAI
plays by its own rules (``rules: agentgym``), adds rewards up and answers no more once an episode is over,
WebShop fails with status 500 and cannot close in older versions.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from rlprm import envs
from rlprm.types import End, Split, Task, Turn

PROTOCOLS = ("babyai", "textcraft", "webshop")


def world_task(protocol: str, data_idx: int) -> Task:
    """The task of our own environment that a data index stands for."""
    settings: dict[str, Any] = {}
    if protocol == "babyai":
        settings = {"levels": envs.load("babyai").LEVELS, "rules": "agentgym"}  # type: ignore[attr-defined]
    split = {"babyai": Split.TEST, "textcraft": Split.TRAIN}.get(protocol, Split.DEV)
    return envs.load(protocol).tasks(split, data_idx, 1, **settings)[0]


def open_world(protocol: str, data_idx: int) -> Any:
    """An episode in process."""
    return envs.load(protocol).make(world_task(protocol, data_idx), end=End.ON_SUCCESS)


@dataclass
class AgentGymServer:
    """A running server, what it was asked, and the faults it is to show."""

    protocol: str
    url: str = ""
    requests: list[tuple[str, Any]] = field(default_factory=list)
    """Path and body of each request."""
    faults: dict[str, deque[Callable[[Handler], bool]]] = field(default_factory=lambda: defaultdict(deque))
    """Path → what to do instead of answering the next requests; true goes on to answer."""
    worlds: dict[int, Any] = field(default_factory=dict)
    """Session → its episode, None before the first."""
    shown: dict[int, str] = field(default_factory=dict)
    """Session → its latest observation."""
    created: int = 0
    closed: list[int] = field(default_factory=list)
    shop_closes: bool = False
    """Whether WebShop is a newer version, which can close sessions."""
    bad_indices: set[int] = field(default_factory=set)
    """Data indices with which no session can be reset."""
    connections: int = 0
    sockets: list[socket.socket] = field(default_factory=list)
    busy: int = 0
    most_busy: int = 0
    """Largest number of requests under way at one time."""
    delay: float = 0.0
    """Seconds that every answer takes."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, path: str) -> int:
        return sum(asked == path for asked, _ in self.requests)

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        """Status and content."""
        act = getattr(self, f"{self.protocol}_{path.strip('/')}", None)
        if act is None or (path, self.protocol, self.shop_closes) == ("/close", "webshop", False):
            return 404, {"detail": "Not Found"}
        with self.lock:
            try:
                return 200, act(body)
            except (KeyError, RuntimeError, TypeError) as error:
                if self.protocol == "webshop":
                    return 500, "Internal Server Error"
                return 200, {"error": str(error)}

    def _create(self) -> int:
        self.created += 1
        self.worlds[self.created] = None
        return self.created

    def _begin(self, session: int, data_idx: int) -> str:
        if session not in self.worlds:
            raise KeyError(f"The id {session} is not valid.")
        if data_idx in self.bad_indices:
            raise RuntimeError(f"no game {data_idx}")
        self.worlds[session] = open_world(self.protocol, data_idx)
        self.shown[session] = self.worlds[session].reset()
        return self.shown[session]

    def _act(self, session: int, action: str) -> Turn:
        if self.worlds[session] is None:
            raise RuntimeError("no episode")
        turn: Turn = self.worlds[session].step(action)
        self.shown[session] = turn.observation
        return turn

    def babyai_create(self, body: Any) -> Any:
        assert body is None
        return {"id": self._create()}

    def babyai_reset(self, body: Any) -> Any:
        observation = self._begin(body["id"], body["data_idx"])
        return {"observation": observation, "reward": 0, "score": 0, "deleted": False, "done": False}

    def babyai_step(self, body: Any) -> Any:
        turn, world = self._act(body["id"], body["action"]), self.worlds[body["id"]]
        paid = {"reward": world.reward, "score": world.total}
        return {"observation": turn.observation, **paid, "done": turn.stop is not None}

    def babyai_close(self, body: Any) -> Any:
        self.closed.append(body["id"])
        return self.worlds.pop(body["id"]) is not None

    def textcraft_create(self, body: Any) -> Any:
        assert body == {"commands": None, "goal": None}
        return {"id": self._create(), "observation": "Crafting commands:", "done": False, "reward": 0}

    def textcraft_reset(self, body: Any) -> Any:
        observation = self._begin(body["id"], body["data_idx"])
        return {"id": body["id"], "observation": observation, "done": False, "reward": 0}

    def textcraft_step(self, body: Any) -> Any:
        turn = self._act(body["id"], body["action"])
        return {"observation": turn.observation, "reward": turn.reward, "done": turn.stop is not None}

    textcraft_close = babyai_close

    def webshop_create(self, body: Any) -> Any:
        assert body is None
        return self._create()

    def webshop_reset(self, body: Any) -> Any:
        return [self._begin(body["env_idx"], body["session_id"]), None]

    def webshop_step(self, body: Any) -> Any:
        turn = self._act(body["env_idx"], body["action"])
        return {"state": turn.observation, "reward": turn.reward, "done": turn.stop is not None, "info": None}

    def webshop_close(self, body: Any) -> Any:
        self.closed.append(body["env_idx"])
        known = body["env_idx"] in self.worlds
        self.worlds.pop(body["env_idx"], None)
        return {"closed": known}

    def webshop_observation(self, body: Any) -> Any:
        return self.shown[int(body["env_idx"])]


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    served: AgentGymServer
    loses_answer = False

    def setup(self) -> None:
        super().setup()
        with self.served.lock:
            self.served.connections += 1
            self.served.sockets.append(self.connection)

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        split = urlsplit(self.path)
        self.respond(split.path, {name: values[0] for name, values in parse_qs(split.query).items()})

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.respond(self.path, json.loads(content) if content else None)

    def respond(self, path: str, body: Any) -> None:
        served = self.served
        with served.lock:
            served.requests.append((path, body))
            served.busy += 1
            served.most_busy = max(served.most_busy, served.busy)
        try:
            time.sleep(served.delay)
            faults = served.faults[path]
            if faults and not faults.popleft()(self):
                self.close_connection = True
                return
            status, content = served.answer(path, body)
        finally:
            with served.lock:
                served.busy -= 1
        if self.loses_answer:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        self.send(status, json.dumps(content).encode())

    def send(self, status: int, content: bytes, length: int | None = None, last: bool = False) -> None:
        """Send an answer; the last one on a connection says so, or a client might use it again just then."""
        self.send_response(status)
        if last:
            self.send_header("Connection", "close")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)


def says(content: Any, status: int = 200) -> Callable[[Handler], bool]:
    """Answer with this; bytes as they are."""

    def fault(handler: Handler) -> bool:
        encoded = content if isinstance(content, bytes) else json.dumps(content).encode()
        handler.send(status, encoded, last=True)
        return False

    return fault


def drops(handler: Handler) -> bool:
    """End the connection without an answer."""
    handler.connection.shutdown(socket.SHUT_RDWR)
    return False


def carries_out_and_drops(handler: Handler) -> bool:
    """Do what was asked, and end the connection without an answer."""
    handler.loses_answer = True
    return True


def resets(handler: Handler) -> bool:
    """End the connection the hard way."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    return False


def halves(handler: Handler) -> bool:
    """Send half an answer."""
    handler.send(200, b'{"observation": "yo', length=100)
    return False


def sleeps(seconds: float) -> Callable[[Handler], bool]:
    """Answer late."""

    def fault(_: Handler) -> bool:
        time.sleep(seconds)
        return True

    return fault


def trickles(handler: Handler) -> bool:
    """Send a byte now and then: no single read takes long, the answer takes for ever."""
    handler.send(200, b"", length=1000)
    try:
        for _ in range(1000):
            handler.wfile.write(b" ")
            time.sleep(0.05)
    except OSError:
        pass
    return False


class Quiet(ThreadingHTTPServer):
    """Says nothing of clients that are gone."""

    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: object) -> None:
        pass


@contextmanager
def serving(protocol: str, port: int = 0) -> Iterator[AgentGymServer]:
    """Run a server on a port of its own, or on a given one."""
    served = AgentGymServer(protocol)
    http = Quiet(("127.0.0.1", port), type("Bound", (Handler,), {"served": served}))
    served.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
        for connection in served.sockets:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
