"""A PRM server in a thread of the test, and a small PRM to serve."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlprm.data.rendering import ChatRenderer
from rlprm.models.heads import SCALAR
from rlprm.runtime.addresses import bind
from rlprm.scorers.base import Scorer
from rlprm.serving.prm_server import PRMServer, load_service
from rlprm.serving.prm_settings import ServePRMConfig
from tests.toys.heads import with_random_head
from tests.toys.manifests import manifest

HOST = "127.0.0.1"


def save_prm(folder: Path, body: Path, renderer: ChatRenderer, *, head: str = SCALAR, **changed: Any) -> str:
    """Save a PRM with a random head on the model of another folder; returns its folder."""
    with_random_head(body, head).save_pretrained(folder)
    renderer.tokenizer.save_pretrained(folder)
    scale = None if head == SCALAR else 0.3
    manifest(renderer.template_hash, head=head, lm_scale=scale, **changed).save(folder)
    return str(folder)


@contextmanager
def served(prm: str, *, scorer: Scorer | None = None, **settings: Any) -> Iterator[str]:
    """Serve a PRM on a free port while the block runs; yields the URL.

    Args:
        prm: its folder.
        scorer: in place of the PRM's own.
        settings: of ``rlprm serve-prm``.
    """
    config = ServePRMConfig(prm=prm, port=0, **settings)
    with bind(HOST, 0) as listener:
        server = PRMServer(load_service(config, scorer), listener, HOST)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        assert server.ready.wait(30)
        try:
            yield server.url
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()
