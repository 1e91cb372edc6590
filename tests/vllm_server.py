"""One real vLLM server for all tests of a run, started by the first that needs it, and a second one for few.

vLLM lives in an environment of its own: ``bash scripts/install_vllm.sh`` makes ``.venv-vllm``.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from rlprm.models.tiny import tiny_model
from rlprm.serving.vllm_line import line_of, url_of
from rlprm.serving.vllm_server import wait_for
from rlprm.serving.vllm_settings import ServeConfig
from tests.toys import agents

ROOT = Path(__file__).parent.parent
CONTEXT = 512
_INFO = "vllm.json"
full = pytest.mark.skipif(
    not os.environ.get("RLPRM_TEST_FULL"), reason="takes too long for scripts/test.sh: scripts/test_full.sh"
)


@dataclass(frozen=True)
class RealServer:
    """A server and the model that it began with."""

    url: str
    model: Path


def shared_folder(base: Path) -> Path:
    """Return the folder that all test processes of a run see."""
    return base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base


def interpreter() -> str:
    """Return the Python that has vLLM; skips the test if there is none."""
    python = Path(os.environ.get("RLPRM_VLLM_PYTHON", ROOT / ".venv-vllm/bin/python"))
    if not python.exists():
        pytest.skip("no environment with vLLM: bash scripts/install_vllm.sh makes one")
    return str(python.absolute())


def start(folder: Path) -> RealServer:
    """Return the server of this run; the caller holds the lock of :func:`lock_of`."""
    info = folder / _INFO
    if info.exists():
        found = json.loads(info.read_text())
        return RealServer(found["url"], Path(found["model"]))
    interpreter()
    model = folder / "vllm-model"
    # The closing token is likelier than others, so that some messages end before the limit.
    weights = tiny_model(agents.renderer().tokenizer, size="xs", context_length=CONTEXT)
    weights.get_input_embeddings().weight.data[agents.renderer().closing_id] *= 2.5
    weights.save_pretrained(model)
    agents.renderer().tokenizer.save_pretrained(model)
    return _started(folder, model)


def start_beside(first: RealServer, folder: Path) -> RealServer:
    """Return a further server of the same model, noted in a folder of its own; see :func:`stop`."""
    return _started(folder, first.model)


def _started(folder: Path, model: Path) -> RealServer:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config, process = _launch(folder, model, port)
    wait_for(config, [process])
    return RealServer(url_of(config, 0), model)


def _launch(folder: Path, model: Path, port: int) -> tuple[ServeConfig, subprocess.Popen[bytes]]:
    """Start the server, and note it as that of the run; it answers later."""
    config = ServeConfig(model=str(model), port=port, lora_r=8, cpu_cache_gib=1, log_dir=str(folder))
    line = line_of(config, 0, python=interpreter(), model=str(model), context_length=CONTEXT, on_gpu=False)
    with (folder / "server-0.log").open("wb") as log:  # not `running`, which stops its servers at its end
        process = subprocess.Popen(
            line.words, env=os.environ | line.variables | {"OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    found = {"pid": process.pid, "url": url_of(config, 0), "model": str(model), "port": port}
    (folder / _INFO).write_text(json.dumps(found))
    return config, process


def kill_and_restart(folder: Path) -> None:
    """Kill the server of a run at once, with what it does, and start it again; it answers later."""
    found = json.loads((folder / _INFO).read_text())
    kill(folder)
    _launch(folder, Path(found["model"]), found["port"])


def kill(folder: Path) -> None:
    """Kill a server at once, with what it does."""
    pid = json.loads((folder / _INFO).read_text())["pid"]
    os.killpg(pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)


def stop(folder: Path) -> None:
    """End the server of a run, if there is one."""
    info = folder / _INFO
    if not info.exists():
        return
    pid = json.loads(info.read_text()).get("pid")
    for kind in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(pid, kind)
        except (ProcessLookupError, TypeError):
            break
        with suppress(ChildProcessError):  # another process of the run may have started the server
            os.waitpid(pid, 0 if kind is signal.SIGKILL else os.WNOHANG)
        if kind is signal.SIGTERM:
            time.sleep(3)
    info.unlink()


def lock_of(folder: Path) -> FileLock:
    """Return the lock of the server: one test at a time, since tests change its weights."""
    return FileLock(folder / "vllm.lock")
