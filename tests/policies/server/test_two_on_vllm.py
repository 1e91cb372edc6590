"""Two real vLLM servers of which one is killed for good while a stage acts through both."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlprm.data.store import TrajectoryStore
from rlprm.policies.server.client import Server
from rlprm.policies.server.policy import ServerPolicy
from tests import vllm_server
from tests.policies.server.test_stages_on_vllm import RL, journal, on
from tests.vllm_server import RealServer, full

pytestmark = [pytest.mark.slow, full]


@pytest.fixture
def beside(vllm: RealServer, tmp_path: Path) -> Iterator[tuple[RealServer, Path]]:
    """A second server and its folder."""
    folder = tmp_path / "beside"
    folder.mkdir()
    try:
        yield vllm_server.start_beside(vllm, folder), folder
    finally:
        vllm_server.stop(folder)


@pytest.fixture
def killed_in_episode(
    beside: tuple[RealServer, Path], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, int], list[int]]:
    """Kill the second server when an episode that began there goes on with weights of one version."""
    server, folder = beside

    def arrange(version: str, number: int) -> list[int]:
        act_one, counted = ServerPolicy.act_one, [0]

        async def counting(self: ServerPolicy, conversation: Any, seed: int) -> Any:
            home = conversation.home
            if isinstance(home, Server) and home.url == server.url and self.revision.endswith(version):
                counted[0] += 1
                if counted[0] == number:
                    vllm_server.kill(folder)
            return await act_one(self, conversation, seed)

        monkeypatch.setattr(ServerPolicy, "act_one", counting)
        return counted

    return arrange


def both(first: RealServer, second: RealServer) -> RealServer:
    """Two servers as one value of the setting."""
    return replace(first, url=f"[{first.url}, {second.url}]")


def warnings_of(server: RealServer, caplog: pytest.LogCaptureFixture) -> list[str]:
    warned = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    return [text for text in warned if server.url in text]


def test_a_collection_goes_on_with_the_other_server(
    vllm: RealServer,
    beside: tuple[RealServer, Path],
    killed_in_episode: Callable[[str, int], list[int]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    collect = ["--num_tasks", "6", "--samples_per_task", "3", "--wave_size", "6"]
    assert on(vllm, "collect", tmp_path / "whole", *collect) == 0
    counted = killed_in_episode("", 4)
    caplog.clear()
    assert on(both(vllm, beside[0]), "collect", tmp_path / "killed", *collect) == 0
    (warning,) = warnings_of(beside[0], caplog)
    assert warning.endswith("1 of 2 servers go on")
    assert "\n" not in warning
    assert counted[0] >= 4
    whole, killed = (list(TrajectoryStore.open(tmp_path / name).read()) for name in ("whole", "killed"))
    assert [(t.token_ids, t.stop) for t in killed] == [(t.token_ids, t.stop) for t in whole]


@pytest.mark.parametrize("adapters", [[], ["--lora_r", "4"]], ids=["full", "lora"])
def test_train_rl_goes_on_with_the_other_server(
    vllm: RealServer,
    beside: tuple[RealServer, Path],
    killed_in_episode: Callable[[str, int], list[int]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    adapters: list[str],
) -> None:
    settings = [*RL, *adapters, "--iterations", "3"]
    assert on(vllm, "train-rl", tmp_path / "whole", *settings) == 0
    counted = killed_in_episode("-1", 2)
    caplog.clear()
    assert on(both(vllm, beside[0]), "train-rl", tmp_path / "killed", *settings) == 0
    lost, left_out = warnings_of(beside[0], caplog)
    assert lost.endswith("1 of 2 servers go on")
    assert "is left out until it has the weights of this run" in left_out  # at the next update
    assert counted[0] >= 2
    whole, killed = journal(tmp_path / "whole"), journal(tmp_path / "killed")
    assert len(whole) == 3
    for one, other in zip(whole, killed, strict=True):
        assert other == pytest.approx(one, abs=1e-5, rel=1e-4)
