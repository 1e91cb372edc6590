"""``rlprm serve``: the line, and processes that are started, watched and stopped together."""

from __future__ import annotations

import shlex
import socket
import sys
from pathlib import Path

import pytest

from rlprm import cli
from rlprm.errors import ConfigError, ServersGoneError
from rlprm.models.tiny import tiny_model
from rlprm.serving.vllm_line import Line, line_of
from rlprm.serving.vllm_server import check, running, wait_for, watch
from rlprm.serving.vllm_settings import ServeConfig
from tests.toys import agents

RECIPE = "recipes/textcraft/train_rl_qwen2.5-3b_vllm.yaml"


def line(config: ServeConfig, *, on_gpu: bool, number: int = 0) -> Line:
    return line_of(config, number, python="py", model="/m", context_length=512, on_gpu=on_gpu)


def test_what_a_gpu_and_a_cpu_are_given() -> None:
    config = ServeConfig(model="m", lora_r=20, servers=2, first_gpu=4)
    gpu, cpu = (line(config, on_gpu=on_gpu, number=1) for on_gpu in (True, False))
    assert gpu.variables["CUDA_VISIBLE_DEVICES"] == "5"
    assert "--enforce-eager" not in gpu.words
    assert "CUDA_VISIBLE_DEVICES" not in cpu.variables
    assert cpu.words[cpu.words.index("--dtype") + 1] == "float32"
    for of in (gpu, cpu):
        assert of.words[of.words.index("--port") + 1] == "8001"
        assert of.words[of.words.index("--host") + 1] == "127.0.0.1"
        assert of.words[of.words.index("--max-lora-rank") + 1] == "32"
        assert of.words[of.words.index("--logprobs-mode") + 1] == "processed_logprobs"
        assert "--enable-scale-out" in of.words


def test_no_key_is_in_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    assert "secret" not in str(line(ServeConfig(model="m"), on_gpu=False))


def test_the_line_can_be_pasted_into_a_shell() -> None:
    written = str(
        line_of(ServeConfig(model="a b"), 0, python="/p y", model="/a b", context_length=None, on_gpu=False)
    )
    words = shlex.split(written)
    assert "/a b" in words
    assert "/p y" in words
    assert "--max-model-len" not in words


def test_a_recipe_of_another_stage_gives_model_and_limits(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "--config", RECIPE, "--dry_run", "true", "--root", "r", "--servers", "2"]) == 0
    first, second = capsys.readouterr().out.strip().splitlines()
    assert "--model r/policy" in first
    assert "--max-model-len 8192" in first
    assert "--max-lora-rank 32" in first
    assert "--port 8001" in second


def test_a_missing_model_or_vllm_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["serve", "--model", str(tmp_path / "nowhere")]) == 2
    assert "no model at" in capsys.readouterr().err


def stand_in(text: str) -> Line:
    return Line([sys.executable, "-c", text], {})


def test_servers_are_stopped_with_their_children(tmp_path: Path) -> None:
    child = (
        "import subprocess,sys,time; subprocess.Popen([sys.executable,'-c','import time; time.sleep(60)']); "
    )
    config = ServeConfig(model="m", log_dir=str(tmp_path))
    with running(config, [stand_in(child + "time.sleep(60)")] * 2) as servers:
        assert all(server.poll() is None for server in servers)
    assert all(server.poll() is not None for server in servers)
    groups = {server.pid for server in servers}
    alive = [
        stat for stat in Path("/proc").glob("[0-9]*/stat")
        if (fields := _fields(stat)) and int(fields[2]) in groups and fields[0] != "Z"
    ]  # fmt: skip
    assert alive == []


def _fields(stat: Path) -> list[str]:
    try:
        return stat.read_text().rpartition(")")[2].split()
    except OSError:
        return []


def test_a_server_that_does_not_start_is_told_with_its_last_lines(tmp_path: Path) -> None:
    config = ServeConfig(model="m", log_dir=str(tmp_path), port=1)
    failing = stand_in("print('no \\x1b[2Jmemory'); raise SystemExit(3)")
    with running(config, [failing]) as servers:
        servers[0].wait(30)
        with pytest.raises(ServersGoneError, match=r"status 3; log: .*: no \\x1b\[2Jmemory"):
            wait_for(config, servers)


def test_one_of_two_servers_may_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = ServeConfig(model="m", log_dir=str(tmp_path))
    with running(config, [stand_in("pass"), stand_in("import time; time.sleep(60)")]) as servers:
        servers[0].wait(30)
        looks = watch(config, servers)
        next(looks)
        next(looks)
        assert caplog.text.count("server 0 has ended; 1 go on") == 1
        with pytest.raises(ServersGoneError):
            check(config, servers)
        servers[1].kill()
        servers[1].wait(30)
        with pytest.raises(ServersGoneError):
            next(looks)


def test_a_command_runs_beside_and_its_status_is_kept(tmp_path: Path) -> None:
    python = tmp_path / "python"  # answers /health, whatever its arguments are
    body = (
        "import http.server, sys\n"
        "class H(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n        self.send_response(200)\n        self.end_headers()\n"
        "port = int(sys.argv[sys.argv.index('--port') + 1]) if '--port' in sys.argv else None\n"
        "port and http.server.HTTPServer(('127.0.0.1', port), H).serve_forever()\n"
    )
    python.write_text(f"#!{sys.executable}\n{body}")
    python.chmod(0o755)

    tiny_model(agents.renderer().tokenizer, size="xs").save_pretrained(tmp_path / "m")
    named = [
        "--model",
        str(tmp_path / "m"),
        "--vllm_python",
        str(python),
        "--log_dir",
        str(tmp_path / "logs"),
    ]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    ends = [sys.executable, "-c", "raise SystemExit(7)"]
    assert cli.main(["serve", *named, "--port", port, "--", *ends]) == 7


def test_a_port_that_another_program_has_is_refused(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = ServeConfig(model="m", log_dir=str(tmp_path), port=taken.getsockname()[1])
        with pytest.raises(ConfigError, match="cannot listen on"), running(config, [stand_in("pass")]):
            pass
