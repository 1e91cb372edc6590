"""Starting a PRM server: from settings to a model behind a socket, and to a clean end."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from rlprm.data.rendering import ChatRenderer
from rlprm.errors import ArtifactError, ChatTemplateError, ConfigError, MismatchError, first_line
from rlprm.models.kv_cache.support import reads_growing, vocabulary_of
from rlprm.models.loading import load_tokenizer, revision_of
from rlprm.models.positions import positions_of
from rlprm.runtime.addresses import bind, is_loopback
from rlprm.scorers._connection import api_key_of
from rlprm.scorers.base import Scorer
from rlprm.scorers.checkpoint import CheckpointScorer
from rlprm.serving.prm_app import Limits, Service, error_line, make_app
from rlprm.serving.prm_metrics import Metrics
from rlprm.serving.prm_requests import Bounds
from rlprm.serving.prm_settings import ServePRMConfig
from rlprm.serving.prm_trajectories import Trajectories
from rlprm.serving.prm_worker import Worker

__all__ = ["PRMServer", "load_service", "serve"]

log = logging.getLogger(__name__)
_NAME = "prm"
_IDLE = 30  # seconds until an idle connection is closed
_GRACE = 15  # seconds for requests that are being answered when the server is asked to stop


def serve(config: ServePRMConfig) -> None:
    """Serve until SIGINT or SIGTERM; requests that were begun are answered.

    Raises:
        ArtifactError: if the PRM cannot be loaded.
        ConfigError: if the address cannot be listened on.
        MismatchError: if the PRM's tokenizer is not the one it was trained with.
    """
    with bind(config.host, config.port) as listener:
        server = PRMServer(load_service(config), listener, config.host)
        if not is_loopback(config.host) and not config.api_key_env:
            log.warning("host %s can be reached from other machines, and no key is asked for", config.host)
        server.run()
    log.info("stopped as requested")


def load_service(config: ServePRMConfig, scorer: Scorer | None = None) -> Service:
    """Load a PRM and put its parts together.

    Args:
        config: settings.
        scorer: reads whole trajectories in place of the PRM's own; for tests.

    Raises:
        ArtifactError: if the PRM cannot be loaded.
        ConfigError: for a limit above the PRM's context.
        MismatchError: if the PRM's tokenizer is not the one it was trained with.
    """
    own = CheckpointScorer.load(_NAME, config.prm, dtype=config.dtype, token_budget=config.token_budget)
    manifest, context = own.manifest, positions_of(own.model.config)
    if (config.max_tokens or 0) > context:
        raise ConfigError(f"max_tokens: got {config.max_tokens}, allowed: up to the PRM's {context}")
    reads_growing(own.model)  # tried now, and kept: the first search does not wait for it
    metrics = Metrics()
    # Every search has a reader of its own, over the same weights.
    make = partial(CheckpointScorer, _NAME, own.model, manifest, token_budget=config.token_budget)
    return Service(
        manifest=manifest,
        revision=revision_of(config.prm),
        context_length=context,
        trajectories=Trajectories(
            manifest.template,
            Bounds(
                config.max_trajectories,
                config.max_steps,
                config.max_tokens or context,
                vocabulary_of(own.model),
            ),
            _renderer_of(config.prm, manifest.template),
            environment=manifest.environment,
            end=manifest.end,
        ),
        worker=Worker(
            scorer or own,
            make,
            token_budget=config.token_budget,
            search_tokens=config.search_tokens,
            metrics=metrics,
        ),
        metrics=metrics,
        limits=Limits(config.max_body, config.timeout, config.max_queue),
        api_key=api_key_of(config.api_key_env),
    )


def _renderer_of(prm: str, template: str) -> ChatRenderer | None:
    """Return the renderer of a PRM's chat template; None if there is none that can be used."""
    try:
        renderer = ChatRenderer(load_tokenizer(prm))
    except (ArtifactError, ChatTemplateError) as error:
        log.warning("only trajectories in token ids are scored, no messages: %s", first_line(error))
        return None
    if renderer.template_hash != template:
        raise MismatchError(
            f"the PRM was trained with template {template}, but the tokenizer in {prm} has "
            f"{renderer.template_hash}"
        )
    return renderer


class PRMServer(uvicorn.Server):
    """A server of one process.

    Args:
        service: what it serves.
        listener: bound to its address.
        host: for the line that says where it listens.
    """

    def __init__(self, service: Service, listener: socket.socket, host: str) -> None:
        config = uvicorn.Config(
            make_app(service),
            http=_Protocol,
            loop="asyncio",
            ws="none",
            lifespan="on",
            access_log=False,  # a path is what a client sent
            log_config=None,
            server_header=False,
            timeout_keep_alive=_IDLE,
            timeout_graceful_shutdown=_GRACE,
        )
        super().__init__(config)
        self.service, self.listener, self.host = service, listener, host
        self.ready = threading.Event()

    @property
    def url(self) -> str:
        """Where the server can be asked."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.listener.getsockname()[1]}"

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal, or until ``should_exit`` is set."""
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        super().run([self.listener] if sockets is None else sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen, and say where."""
        await super().startup(sockets)
        log.info(
            "serving a PRM (revision %s, head %s, template %s) on %s; Ctrl-C stops it",
            self.service.revision, self.service.manifest.head, self.service.manifest.template, self.url,
        )  # fmt: skip
        self.ready.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End on SIGINT and SIGTERM without raising them again: a requested stop is no error."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Protocol(H11Protocol):
    """Answers what is no HTTP by a line of JSON, too."""

    def send_400_response(self, msg: str) -> None:
        answer = error_line(400, "the request is no HTTP")
        headers = [*answer.raw_headers, (b"connection", b"close")]
        events = (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=bytes(answer.body)),
            h11.EndOfMessage(),
        )
        for event in events:
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


_SIGNALS = (signal.SIGINT, signal.SIGTERM)
