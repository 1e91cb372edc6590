"""The report on a server of this machine: one page, for this machine alone."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from rlprm.report.server import page_server
from tests.report.runs import evaluation, record


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    evaluation(tmp_path / "evaluation")
    server = page_server([str(tmp_path)])
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


def load(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
        return str(answer.read().decode())


def test_a_load_shows_what_has_been_written_since(port: int, tmp_path: Path) -> None:
    assert "train_loss" not in load(port)
    record(tmp_path / "policy", "sft", train_loss=0.25)
    assert "train_loss" in load(port)


def test_nothing_but_the_page_is_served_and_to_nobody_elses_name(port: int) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/../stage.json")
    connection = HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/", headers={"Host": f"example.org:{port}"})
    assert connection.getresponse().status == 404
    connection.close()


def test_the_server_listens_on_loopback_only(tmp_path: Path) -> None:
    server = page_server([str(evaluation(tmp_path))])
    assert server.server_address[0] == "127.0.0.1"
    server.server_close()
