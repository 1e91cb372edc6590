"""A PRM server under load, with clients that leave, keys, and a scorer that is slow or fails."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from rlprm.errors import ArtifactError, ConfigError, MismatchError
from rlprm.models.manifest import Manifest
from rlprm.runtime.addresses import bind
from rlprm.scorers.checkpoint import CheckpointScorer
from rlprm.serving.prm_app import make_app
from rlprm.serving.prm_metrics import Metrics
from rlprm.serving.prm_server import PRMServer, load_service
from rlprm.serving.prm_settings import ServePRMConfig
from rlprm.serving.prm_worker import Job, StoppedError, Worker
from rlprm.stages import serve_prm
from rlprm.types import StepScores, Trajectory
from tests.serving.test_prm_endpoints import error_of, tokens
from tests.toys.serving import served
from tests.toys.trajectories import of_steps, of_words

ROOT = Path(__file__).parents[2]


class Gated:
    """Scores every step 0.5 as soon as it may; remembers the sizes of its batches.

    A trajectory of four steps fails, with a message that no log may show.
    """

    name = "gated"

    def __init__(self, *, is_open: bool = False) -> None:
        self.may = threading.Event()
        self.begun = threading.Event()
        self.batches: list[int] = []
        if is_open:
            self.may.set()

    def score(self, trajectories: Sequence[Trajectory]) -> list[StepScores]:
        self.begun.set()
        assert self.may.wait(20)
        self.batches.append(len(trajectories))
        if any(len(t.steps) == 4 for t in trajectories):
            raise ValueError("\x1b[2Jsecret text of a client")
        return [StepScores(0.5, (0.5,) * len(t.steps), len(t.token_ids)) for t in trajectories]


@pytest.fixture
def gated() -> Iterator[Gated]:
    scorer = Gated()
    yield scorer
    scorer.may.set()


def post(url: str, *trajectories: Trajectory, timeout: float = 30) -> httpx.Response:
    rows = [tokens(t) for t in trajectories]
    return httpx.post(f"{url}/score", json={"trajectories": rows}, trust_env=False, timeout=timeout)


# --- load ---------------------------------------------------------------------------------------------------


def test_requests_that_wait_are_scored_together_and_a_full_queue_is_a_503(prm: str, gated: Gated) -> None:
    t = of_words(["right", "left"], True)
    with served(prm, scorer=gated, max_queue=6) as url, ThreadPoolExecutor(6) as pool:
        first = pool.submit(post, url, t)
        assert gated.begun.wait(10)
        others = [pool.submit(post, url, t, t) for _ in range(5)]
        while "queue_length 5" not in httpx.get(f"{url}/metrics", trust_env=False).text:
            time.sleep(0.01)
        refused = post(url, t)
        assert "the server has 6 requests to answer, allowed: 6" in error_of(refused, 503)
        assert refused.headers["retry-after"] == "1"
        assert httpx.get(f"{url}/health", trust_env=False).status_code == 200  # is not in the queue
        gated.may.set()
        assert [len(f.result().json()["scores"]) for f in (first, *others)] == [1, 2, 2, 2, 2, 2]
    assert gated.batches == [1, 10]


def test_a_late_answer_is_a_504_and_is_taken_out_of_the_queue(prm: str, gated: Gated) -> None:
    t = of_words(["right"], True)
    with served(prm, scorer=gated, timeout=0.3) as url:
        message = "the trajectories were not scored within 0.3 seconds"
        with ThreadPoolExecutor(3) as pool:
            assert {error_of(r, 504) for r in pool.map(lambda _: post(url, t), range(3))} == {message}
        gated.may.set()
        assert post(url, t).status_code == 200
    assert gated.batches[1:] == [1]  # after the first one, and perhaps what had come with it, only the last


def test_many_clients_at_once_get_their_own_scores(prm: str, url: str) -> None:
    data = [of_words(["right"] * (1 + i % 6), True, task=str(i)) for i in range(96)]
    expected = CheckpointScorer.load("prm", prm).score(data)
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as client, ThreadPoolExecutor(24) as pool:
        found = list(
            pool.map(lambda t: client.post("/score", json={"trajectories": [tokens(t)]}).json(), data)
        )
    for row, right in zip(found, expected, strict=True):
        assert row["scores"][0]["values"] == pytest.approx(right.values, abs=1e-5)


def test_a_trajectory_that_fails_harms_no_other_and_its_text_is_not_logged(
    prm: str, gated: Gated, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = of_words(["right"], True), of_words(["right"] * 4, True)
    with served(prm, scorer=gated) as url, ThreadPoolExecutor(4) as pool:
        first = pool.submit(post, url, good)
        assert gated.begun.wait(10)
        others = [pool.submit(post, url, t) for t in (good, bad, good)]
        while "queue_length 3" not in httpx.get(f"{url}/metrics", trust_env=False).text:
            time.sleep(0.01)
        gated.may.set()
        assert [f.result().status_code for f in (first, *others)] == [200, 200, 500, 200]
        assert error_of(others[1].result(), 500) == "an error of the server; its log names the place"
        assert post(url, good).status_code == 200
    errors = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert errors
    assert all("ValueError at" in r.getMessage() and r.exc_info is None for r in errors)
    assert "secret" not in caplog.text


def test_a_client_that_leaves_takes_its_request_along(prm: str, gated: Gated) -> None:
    t = of_words(["right"], True)
    with served(prm, scorer=gated) as url, ThreadPoolExecutor(1) as pool:
        first = pool.submit(post, url, t)
        assert gated.begun.wait(10)
        with pytest.raises(httpx.ReadTimeout):
            post(url, t, t, t, timeout=0.3)
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as half:  # in the middle of a body
            half.sendall(b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n")
            half.sendall(b'content-length: 1000\r\n\r\n{"traj')
        deadline = time.monotonic() + 10
        while 'requests_total{status="499"} 2' not in httpx.get(f"{url}/metrics", trust_env=False).text:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        gated.may.set()
        assert first.result().status_code == 200
        assert post(url, t).status_code == 200
    assert gated.batches == [1, 1]


def test_a_body_that_does_not_arrive_is_a_408(prm: str) -> None:
    with served(prm, timeout=0.3) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as slow:
            slow.sendall(b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n")
            slow.sendall(b"content-length: 1000\r\n\r\n{")
            assert slow.recv(4096).startswith(b"HTTP/1.1 408 ")


# --- the worker ---------------------------------------------------------------------------------------------


def worker(scorer: Gated, budget: int) -> Worker:
    return Worker(scorer, Gated, token_budget=budget, search_tokens=0, metrics=Metrics())


def test_batches_fill_the_budget_with_parts_of_long_jobs(gated: Gated) -> None:
    t = of_steps(steps=2)  # 8 tokens
    jobs, made = [Job([t] * n) for n in (1, 5, 2, 1)], worker(gated, 3 * len(t.token_ids))
    made.start()
    made.submit(jobs[0])
    assert gated.begun.wait(10)
    for job in jobs[1:]:
        made.submit(job)
    assert made.queue_length == 3
    gated.may.set()
    assert [len(job.result.result(10)) for job in jobs] == [1, 5, 2, 1]
    assert gated.batches == [1, 3, 3, 2]
    made.stop()


def test_a_stopped_worker_refuses_what_waits(gated: Gated) -> None:
    made, waiting = worker(gated, 1), [Job([of_steps()]) for _ in range(2)]
    made.start()
    first = Job([of_steps()])
    made.submit(first)
    assert gated.begun.wait(10)
    for job in waiting:
        made.submit(job)
    threading.Timer(0.1, gated.may.set).start()
    made.stop()
    assert len(first.result.result(10)) == 1
    for job in waiting:
        with pytest.raises(StoppedError):
            job.result.result(10)
    with pytest.raises(StoppedError):
        made.submit(Job([of_steps()]))


# --- the key ------------------------------------------------------------------------------------------------


def test_a_wrong_or_absent_key_is_a_401_before_the_body_is_read(
    prm: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RLPRM_TEST_KEY", "s3cret")
    with caplog.at_level(logging.DEBUG), served(prm, api_key_env="RLPRM_TEST_KEY") as url:
        for path, wanted in (("/info", 401), ("/metrics", 401), ("/openapi.json", 401), ("/health", 200)):
            assert httpx.get(url + path, trust_env=False).status_code == wanted
        for header in ("Bearer another", "s3cret", "Bearer s3cret2", "Basic s3cret", "Bearer \xe9"):
            headers = {"authorization": header.encode("latin-1")}
            response = httpx.post(f"{url}/score", content=b"{", headers=headers, trust_env=False)
            assert "no valid key" in error_of(response, 401)
            assert response.headers["www-authenticate"] == "Bearer"
        good = {"authorization": "Bearer s3cret"}
        assert httpx.get(f"{url}/info", headers=good, trust_env=False).status_code == 200
        assert "s3cret" not in httpx.get(f"{url}/info", headers=good, trust_env=False).text
        service = load_service(ServePRMConfig(prm=prm, api_key_env="RLPRM_TEST_KEY"))
    assert "s3cret" not in caplog.text + repr(service)


@pytest.mark.parametrize("value", ["", " x", "a\nb", "\xe9"])
def test_a_variable_without_a_key_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLPRM_TEST_KEY", value)
    with pytest.raises(ConfigError, match="api_key_env: the environment variable that it names holds no key"):
        ServePRMConfig(prm="p", api_key_env="RLPRM_TEST_KEY")


# --- start and end ------------------------------------------------------------------------------------------


def test_answers_are_sent_without_delay() -> None:
    """asyncio switches the delay off for sockets that name their protocol."""
    with bind("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP


def test_a_server_that_does_not_score_any_more_says_so(prm: str) -> None:
    service = load_service(ServePRMConfig(prm=prm))  # its worker never starts

    async def answers() -> list[httpx.Response]:
        transport = httpx.ASGITransport(make_app(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            rows = [tokens(of_words(["right"], True))]
            return [await client.get("/health"), await client.post("/score", json={"trajectories": rows})]

    health, scores = asyncio.run(answers())
    assert "does not score any more" in error_of(health, 503)
    assert "stopping" in error_of(scores, 503)


def test_packages_that_are_missing_are_named(prm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_prm, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="serve-prm needs fastapi and uvicorn: pip install fastapi uvicorn"):
        serve_prm.run(ServePRMConfig(prm=prm))


def test_what_keeps_a_server_from_starting_is_one_line(prm: str, tmp_path: Path) -> None:
    with bind("127.0.0.1", 0) as held:
        held.listen()
        with pytest.raises(
            ConfigError, match=r"cannot listen on '127.0.0.1', port .*: Address already in use"
        ):
            bind("127.0.0.1", held.getsockname()[1])
    with pytest.raises(ConfigError, match="cannot listen on 'no such host'"):
        bind("no such host", 1)
    with pytest.raises(ArtifactError, match="nowhere"):
        load_service(ServePRMConfig(prm=str(tmp_path / "nowhere")))
    with pytest.raises(ConfigError, match="max_tokens: got 513, allowed: up to the PRM's 512"):
        load_service(ServePRMConfig(prm=prm, max_tokens=513))
    for file in Path(prm).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    Manifest(**{**vars(Manifest.load(prm)), "template": "dead"}).save(tmp_path)
    with pytest.raises(MismatchError, match="trained with template dead, but the tokenizer in"):
        load_service(ServePRMConfig(prm=str(tmp_path)))


def test_a_revision_belongs_to_the_prm() -> None:
    assert ServePRMConfig(prm="org/name", revision="v1").prm == "org/name@v1"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_requested_stop_answers_what_was_begun(number: signal.Signals, prm: str, gated: Gated) -> None:
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with bind("127.0.0.1", 0) as listener, ThreadPoolExecutor(1) as pool:
        service = load_service(ServePRMConfig(prm=prm), gated)
        server = PRMServer(service, listener, "127.0.0.1")

        def stop() -> httpx.Response:
            assert server.ready.wait(20)
            answer = pool.submit(post, server.url, of_words(["right"], True))
            assert gated.begun.wait(10)
            os.kill(os.getpid(), number)
            gated.may.set()
            return answer.result(20)

        with ThreadPoolExecutor(1) as stopping:
            answered = stopping.submit(stop)
            server.run()  # raises nothing: a requested stop is no error
        assert answered.result().status_code == 200
    assert not service.worker.is_alive
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_the_command_serves_until_it_is_stopped_and_ends_with_status_0(prm: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "rlprm.cli", "serve-prm", "--prm", prm, "--port", "0"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "serving a PRM" in line)
        url = line.split(" on ")[1].split(";")[0]
        assert url.startswith("http://127.0.0.1:")
        t = of_words(["right"], True)
        assert post(url, t).status_code == 200
        httpx.get(f"{url}/%1b%5b2J", trust_env=False)
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
    assert rest.splitlines()[-1] == "stopped as requested"
    assert "\x1b" not in line + rest
    assert not list(tmp_path.iterdir())
