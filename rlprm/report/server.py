"""The report in a browser of this machine: made anew for every load, so that a run can be watched."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

from rlprm.errors import ConfigError, RlprmError
from rlprm.report.finding import find_run
from rlprm.report.page import page_parts

__all__ = ["page_server", "serve_page"]

log = logging.getLogger(__name__)
_LOOPBACK = "127.0.0.1"


def serve_page(folders: Sequence[str], port: int = 0) -> None:
    """Show the report of some runs until the user stops it.

    Raises:
        ConfigError: if the port cannot be used.
    """
    server = page_server(folders, port)
    print(f"http://{_LOOPBACK}:{server.server_port}/  (Ctrl-C stops)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()


def page_server(folders: Sequence[str], port: int = 0) -> ThreadingHTTPServer:
    """Return a server of the report of some runs, bound to loopback.

    Raises:
        ConfigError: if the port cannot be used.
    """

    class Handler(_Handler):
        runs = tuple(folders)

    try:
        return ThreadingHTTPServer((_LOOPBACK, port), Handler)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"port: got {port}, which cannot be used on {_LOOPBACK} ({error})") from error


class _Handler(BaseHTTPRequestHandler):
    runs: ClassVar[tuple[str, ...]] = ()

    def do_GET(self) -> None:
        """Answer the page at ``/``, and nothing else."""
        host = (self.headers.get("Host") or "").rpartition(":")[0]
        if self.path != "/" or host not in (_LOOPBACK, "localhost"):  # a name of others may point here
            self.send_error(404)
            return
        try:
            runs = [find_run(folder) for folder in self.runs]
        except RlprmError as error:
            self.send_error(500, explain=str(error))
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        try:
            for part in page_parts(runs):
                self.wfile.write(part.encode("utf-8", "replace"))
        except BrokenPipeError:
            log.debug("the browser left before the end of the page")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: requests are the user's own."""
