"""The HTTP side of a PRM server: endpoints, the key, limits of size, number and time, and what errors say.

Every error is one line of JSON, ``{"error": ...}``, in ASCII. What a client sent reaches no log: neither
paths nor bodies nor messages of errors are logged.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from fastapi import FastAPI, Request
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rlprm import __version__
from rlprm.functional.aggregation import aggregate
from rlprm.models.manifest import Manifest
from rlprm.serving.prm_metrics import Metrics
from rlprm.serving.prm_requests import RefusedError, ScoreRequest
from rlprm.serving.prm_trajectories import Trajectories
from rlprm.serving.prm_worker import Job, StoppedError, Worker, where_raised
from rlprm.types import StepScores

__all__ = ["Limits", "Service", "error_line", "make_app"]

log = logging.getLogger(__name__)
_GONE = 499
"""What metrics call a request whose client left."""
_RETRY_AFTER = "1"  # second
_OPEN = frozenset({"/health"})
"""What needs no key."""


@dataclass(frozen=True)
class Limits:
    """What a server takes, beside the bounds of a trajectory."""

    max_body: int
    """Bytes."""
    timeout: float
    """Seconds of a request."""
    max_queue: int
    """Requests at the same time."""


@dataclass(frozen=True)
class Service:
    """What the endpoints share."""

    manifest: Manifest
    revision: str
    context_length: int
    trajectories: Trajectories
    worker: Worker
    metrics: Metrics
    limits: Limits
    api_key: str | None = field(default=None, repr=False)


class Scores(BaseModel):
    """Scores of one trajectory."""

    initial: float = Field(description="v_0, the promise before the first action.")
    values: list[float] = Field(description="v_1 ... v_T, the promise after each action.")
    states: list[float] = Field(description="x_1 ... x_T, the value before each action, if it is read.")
    progress: list[float] = Field(description="What each action changed.")
    tokens: int = Field(description="Tokens that the model processed for it.")
    score: float | None = Field(description="The values under the aggregation asked for.")


class ScoreAnswer(BaseModel):
    """Scores, in the order of the request."""

    revision: str
    template: str
    scores: list[Scores]


def make_app(service: Service) -> FastAPI:
    """Return the application; its worker runs as long as the application does."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.worker.start()
        try:
            yield
        finally:
            await asyncio.to_thread(service.worker.stop)

    app = FastAPI(
        title="A process reward model",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.add_exception_handler(RefusedError, _on_refused)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_middleware(cast(Any, _Guard), service=service)
    running = _Running(service.limits.max_queue)

    @app.post("/score", response_model=ScoreAnswer, openapi_extra=_body_of(ScoreRequest))
    async def score(request: Request) -> Response:
        """Score every step of trajectories."""
        with running.one_more():
            return await _score(request, service)

    @app.delete("/searches/{name}")
    async def end_search(name: str) -> Response:
        """Free what is kept of a search; an unknown one is none's concern."""
        service.worker.end_search(name)
        return _line({"status": "ok"})

    @app.get("/health")
    async def health() -> Response:
        """Whether the server scores."""
        if not service.worker.is_alive:
            return error_line(503, "the server does not score any more; start it again")
        return _line({"status": "ok"})

    @app.get("/info")
    async def info() -> Response:
        """What the PRM is, how it is read, and what the server takes."""
        return _line(_info(service))

    @app.get("/metrics")
    async def metrics() -> Response:
        """Counters in Prometheus' text format."""
        text = service.metrics.text(queue_length=service.worker.queue_length)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    return app


def error_line(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return an error as one line of JSON."""
    return _line({"error": message}, status, headers)


def _line(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    text = json.dumps(content, allow_nan=False) + "\n"
    return Response(text, status, headers, media_type="application/json")


def _info(service: Service) -> dict[str, Any]:
    manifest, bounds = service.manifest, service.trajectories.bounds
    return {
        "rlprm": __version__,
        "revision": service.revision,
        "template": manifest.template,
        "head": manifest.head,
        "value_reads": manifest.value_reads,
        "context_length": service.context_length,
        "takes_messages": service.trajectories.renderer is not None,
        "limits": {
            **asdict(service.limits),
            "max_trajectories": bounds.trajectories,
            "max_steps": bounds.steps,
            "max_tokens": bounds.tokens,
        },
        "manifest": asdict(manifest),
    }


def _body_of(model: type[BaseModel]) -> dict[str, Any]:
    """Return what OpenAPI says of a body that the endpoint reads itself."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def inlined(part: Any) -> Any:
        """Put definitions in place of references, which would point into another document."""
        if isinstance(part, list):
            return [inlined(inner) for inner in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            return inlined(definitions[part["$ref"].rpartition("/")[2]])
        return {name: inlined(inner) for name, inner in part.items()}

    content = {"application/json": {"schema": inlined(schema)}}
    return {"requestBody": {"required": True, "content": content}}


class _Running:
    """Counts the requests that are read, wait or are scored; used by the event loop alone."""

    def __init__(self, most: int) -> None:
        self.most, self.now = most, 0

    @contextmanager
    def one_more(self) -> Iterator[None]:
        if self.now >= self.most:
            raise RefusedError(503, f"the server has {self.now} requests to answer, allowed: {self.most}")
        self.now += 1
        try:
            yield
        finally:
            self.now -= 1


async def _score(request: Request, service: Service) -> Response:
    deadline = time.monotonic() + service.limits.timeout
    late = f"within {service.limits.timeout:g} seconds"
    try:
        async with asyncio.timeout(service.limits.timeout):
            body = await _read_body(request, service.limits.max_body)
    except TimeoutError as error:
        raise RefusedError(408, f"the body did not arrive {late}") from error
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            asked, trajectories = await asyncio.to_thread(service.trajectories.read, body)
            job = Job(trajectories, asked.search)
            scores = await _result(request, service.worker, job)
            return await asyncio.to_thread(_answer, service, scores, asked.aggregation)
    except TimeoutError as error:
        raise RefusedError(504, f"the trajectories were not scored {late}") from error
    except StoppedError as error:
        raise RefusedError(503, str(error)) from error


async def _read_body(request: Request, most: int) -> bytes:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RefusedError(415, "the body has another content type, allowed: application/json")
    too_large = RefusedError(413, f"the body has more bytes than {most}, which is what is allowed")
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length[:20]) > most:
        raise too_large
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise too_large
        parts.append(part)
    return b"".join(parts)


async def _result(request: Request, worker: Worker, job: Job) -> list[StepScores]:
    """Wait for the scores of a job; a client that leaves takes the job with it.

    Raises:
        ClientDisconnect: if the client has left.
    """
    worker.submit(job)
    scores: asyncio.Future[Any] = asyncio.wrap_future(job.result)
    left: asyncio.Future[Any] = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait([scores, left], return_when=asyncio.FIRST_COMPLETED)
        if not scores.done():
            raise ClientDisconnect
        found: list[StepScores] = scores.result()
        return found
    finally:
        left.cancel()
        scores.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _answer(service: Service, scores: list[StepScores], aggregation: str | None) -> Response:
    rows = [
        {
            "initial": row.initial,
            "values": row.values,
            "states": row.states,
            "progress": row.progress if row.values else (),
            "tokens": row.tokens,
            "score": None if aggregation is None else aggregate(row.values, aggregation),
        }
        for row in scores
    ]
    return _line({"revision": service.revision, "template": service.manifest.template, "scores": rows})


async def _on_refused(_: Request, error: Exception) -> Response:
    status = error.status if isinstance(error, RefusedError) else 500
    return error_line(status, str(error), {"Retry-After": _RETRY_AFTER} if status == 503 else None)


async def _on_http(_: Request, error: Exception) -> Response:
    """Answer an unknown path or method."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = error.headers if isinstance(error, HTTPException) else None
    known = "POST /score, DELETE /searches/NAME, GET /health, /info, /metrics and /openapi.json"
    return error_line(status, f"there is no such path or method, allowed: {known}", headers)


class _Guard:
    """Asks for the key, counts requests, and keeps what goes wrong from the server's own log."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, seen = time.monotonic(), list[int]()

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen.append(message["status"])
            await send(message)

        try:
            await self._answer(scope, receive, watched, seen)
        finally:
            self.service.metrics.add_request(seen[0] if seen else _GONE, time.monotonic() - started)

    async def _answer(
        self, scope: Scope, receive: Receive, send: Callable[[Message], Awaitable[None]], seen: list[int]
    ) -> None:
        if not self._has_key(scope):
            refusal = error_line(401, "no valid key: send Authorization: Bearer KEY", _CHALLENGE)
            await refusal(scope, receive, send)
            return
        try:
            await self.app(scope, receive, send)
        except ClientDisconnect:
            return
        except Exception as error:  # of any kind: one request must not end the server
            log.error("a request failed: %s", where_raised(error))
            if not seen:
                await error_line(500, "an error of the server; its log names the place")(scope, receive, send)

    def _has_key(self, scope: Scope) -> bool:
        key = self.service.api_key
        if key is None or scope["path"] in _OPEN:
            return True
        given = dict(scope["headers"]).get(b"authorization", b"")
        return hmac.compare_digest(given, f"Bearer {key}".encode())


_CHALLENGE = {"WWW-Authenticate": "Bearer"}
