"""A collection from one of AgentGym's servers, on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlprm import cli
from rlprm.data.store import TrajectoryStore
from rlprm.runtime.record import read_record
from rlprm.types import StopReason
from tests.toys.agentgym_server import serving


def arguments(url: str, protocol: str, model: Path, output: Path) -> list[str]:
    return [
        "collect", "--environment", "agentgym", "--env_kwargs.server", url, "--env_kwargs.protocol", protocol,
        "--env_kwargs.data_indices", "{test: 0-5, train: 10-19}", "--split", "test", "--num_tasks", "3",
        "--samples_per_task", "2", "--round_limit", "2", "--max_new_tokens", "8", "--model", str(model),
        "--output_dir", str(output),
    ]  # fmt: skip


def test_a_collection_from_a_server(tiny_folder: Path, tmp_path: Path) -> None:
    with serving("webshop") as server:
        settings = arguments(server.url, "webshop", tiny_folder, tmp_path / "out")
        assert cli.main(settings) == 0
        asked = len(server.requests)
        assert server.created == 6
        assert cli.main(settings) == 0
        assert len(server.requests) == asked  # what is finished is reused
    store = TrajectoryStore.open(tmp_path / "out")
    made = store.read()
    assert [t.task.id for t in made] == [f"webshop_{n}" for n in (0, 0, 1, 1, 2, 2)]
    assert {t.task.environment for t in made} == {"rlprm.envs.agentgym.webshop"}
    assert all(t.stop in (StopReason.ROUND_LIMIT, StopReason.CONTEXT_LIMIT) for t in made)
    assert all("Instruction:" in t.messages[0]["content"] for t in made)
    assert store.meta["env_kwargs"]["protocol"] == "webshop"


def test_a_server_that_is_not_there(
    tiny_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving("webshop") as server:
        settings = arguments(server.url, "webshop", tiny_folder, tmp_path / "out")
    assert cli.main([*settings, "--env_kwargs.retries", "0"]) == 2
    assert f"NoServerError: no AgentGym server answers at {server.url}" in capfd.readouterr().err
    with serving("webshop", port=int(server.url.rsplit(":", 1)[1])):  # started at last
        assert cli.main(settings) == 0
    assert "error" not in read_record(tmp_path / "out")["results"]["stops"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([], "end: got declared, allowed: on_success"),
        (["--end", "on_success", "--prompt", "nonsense"], "unknown opening style 'nonsense'"),
        (["--env_kwargs.protocol", "alfworld"], "agentgym protocol: got 'alfworld', allowed: babyai"),
        (["--env_kwargs.server", "''"], "agentgym server: got ''; give the URL of an AgentGym server"),
        (["--num_tasks", "7"], "data_indices.test has 6 data indices of textcraft"),
        (["--env_kwargs.data_indices", "{test: nowhere.json}"], "no file or folder 'nowhere.json'"),
    ],
)
def test_mistakes_are_one_line(
    changes: list[str], message: str, tiny_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving("textcraft") as server:
        settings = arguments(server.url, "textcraft", tiny_folder, tmp_path / "out")
        capfd.readouterr()
        assert cli.main([*settings, *changes]) == 2
        lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("rlprm: ")]
        assert len(lines) == 1
        assert message in lines[0]
    assert not list((tmp_path / "out").glob("wave-*"))
