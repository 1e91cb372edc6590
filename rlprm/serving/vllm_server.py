"""vLLM servers as processes of this machine: started together, watched, and stopped together."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import httpx

from rlprm.errors import ArtifactError, ConfigError, ServersGoneError
from rlprm.runtime.addresses import bind
from rlprm.serving.vllm_line import Line, url_of
from rlprm.serving.vllm_settings import ServeConfig

__all__ = ["python_of_vllm", "running", "stopping_on_sigterm", "wait_for", "watch"]

log = logging.getLogger(__name__)
_GRACE = 20.0
_LAST_LINES = 5
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def python_of_vllm(wanted: str) -> str:
    """Return the interpreter of the environment that has vLLM.

    Raises:
        ArtifactError: if there is none.
    """
    here = Path(".venv-vllm/bin/python")
    python = wanted or (str(here.absolute()) if here.exists() else sys.executable)
    found = shutil.which(python)
    if found is None:
        raise ArtifactError(f"vllm_python: no program {python!r}")
    # Not an import: that would take as long as a start.
    probe = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
    if subprocess.run([found, "-c", probe], check=False).returncode:
        raise ArtifactError(
            f"{found} has no vllm; make an environment for it (scripts/install_vllm.sh makes .venv-vllm), or "
            "name its Python with vllm_python"
        )
    return found


@contextmanager
def running(config: ServeConfig, lines: Sequence[Line]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start servers; their logs go to ``log_dir``. At the end all of their processes are stopped."""
    for number in range(len(lines)):
        # The answers of another program there would pass for those of the server.
        bind(config.host, config.port + number).close()
    folder = Path(config.log_dir)
    folder.mkdir(parents=True, exist_ok=True)
    started: list[subprocess.Popen[bytes]] = []
    try:
        for number, line in enumerate(lines):
            with _log_of(config, number).open("wb") as file:
                started.append(
                    subprocess.Popen(
                        line.words, env=os.environ | line.variables, stdin=subprocess.DEVNULL,
                        stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
                    )
                )  # fmt: skip
        yield started
    finally:
        _stop(started)


def wait_for(config: ServeConfig, servers: Sequence[subprocess.Popen[bytes]]) -> None:
    """Wait until every server answers.

    Raises:
        ConfigError: if one does not in time.
        ServersGoneError: if one has ended.
    """
    deadline = time.monotonic() + config.start_timeout
    for number, _ in enumerate(servers):
        while True:
            check(config, servers)
            if _answers(url_of(config, number)):
                break
            if time.monotonic() > deadline:
                raise ConfigError(
                    f"server {number} did not answer in {config.start_timeout:g} seconds (start_timeout); "
                    f"its log is {_log_of(config, number)}"
                )
            time.sleep(0.5)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def watch(config: ServeConfig, servers: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Look at running servers, once for each item; those that have ended are named, and the others go on.

    Raises:
        ServersGoneError: when all of them have ended.
    """
    known: set[int] = set()
    while True:
        ended = {number for number, server in enumerate(servers) if server.poll() is not None}
        if len(ended) == len(servers):
            check(config, servers)
        for number in sorted(ended - known):
            log.warning("server %d has ended; %d go on", number, len(servers) - len(ended))
        known = ended
        yield


def check(config: ServeConfig, servers: Sequence[subprocess.Popen[bytes]]) -> None:
    """Refuse servers of which one has ended.

    Raises:
        ServersGoneError: with the last lines of its log.
    """
    for number, server in enumerate(servers):
        if server.poll() is not None:
            file = _log_of(config, number)
            text = file.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:]
            said = " | ".join(ascii(line)[1:-1] for line in text)
            raise ServersGoneError(
                f"server {number} has ended with status {server.returncode}; log: {file}: {said}"
            )


def _log_of(config: ServeConfig, number: int) -> Path:
    return Path(config.log_dir) / f"server-{number}.log"


def _stop(servers: Sequence[subprocess.Popen[bytes]]) -> None:
    """End the process groups of servers: vLLM's engine is a process of its own.

    Signals that come meanwhile are ignored: a second one must not leave servers behind.
    """
    before = {kind: signal.signal(kind, signal.SIG_IGN) for kind in _ENDS}
    try:
        _stop_groups(servers)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop_groups(servers: Sequence[subprocess.Popen[bytes]]) -> None:
    for kind, grace in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, _GRACE)):
        for server in servers:
            _signal(server, kind)
        deadline = time.monotonic() + grace
        while time.monotonic() < deadline and any(_is_alive(server) for server in servers):
            time.sleep(0.1)
        if not any(_is_alive(server) for server in servers):
            return


def _signal(server: subprocess.Popen[bytes], kind: signal.Signals) -> None:
    try:
        os.killpg(server.pid, kind)
    except ProcessLookupError:
        return


def _is_alive(server: subprocess.Popen[bytes]) -> bool:
    server.poll()
    try:
        os.killpg(server.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


@contextmanager
def stopping_on_sigterm() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a block as Ctrl-C does, so that what the block started is stopped."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {kind: signal.signal(kind, interrupt) for kind in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
