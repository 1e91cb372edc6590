"""A real vLLM server that is killed while a stage acts through it, and begins again with its weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlprm.data.store import TrajectoryStore
from rlprm.errors import MismatchError
from rlprm.policies.server.policy import ServerPolicy
from tests import vllm_server
from tests.policies.server.test_stages_on_vllm import RL, journal, on
from tests.vllm_server import RealServer, full

pytestmark = pytest.mark.slow


@pytest.fixture
def killed_at(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, int], list[int]]:
    """Kill the server in the middle of an action of one version of the weights, and start it again."""
    folder = vllm_server.shared_folder(tmp_path_factory.getbasetemp())

    def arrange(version: str, number: int) -> list[int]:
        act_one, counted = ServerPolicy.act_one, [0]

        async def counting(self: ServerPolicy, *arguments: Any) -> Any:
            if self.revision.endswith(version):
                counted[0] += 1
                if counted[0] == number:
                    vllm_server.kill_and_restart(folder)
            return await act_one(self, *arguments)

        monkeypatch.setattr(ServerPolicy, "act_one", counting)
        return counted

    return arrange


@pytest.mark.parametrize("adapters", [[], pytest.param(["--lora_r", "4"], marks=full)], ids=["full", "lora"])
def test_train_rl_ends_and_goes_on_to_the_same_numbers(
    vllm: RealServer,
    tmp_path: Path,
    killed_at: Callable[[str, int], list[int]],
    capfd: pytest.CaptureFixture[str],
    adapters: list[str],
) -> None:
    settings = [*RL, *adapters, "--iterations", "3", "--save_every", "1"]
    assert on(vllm, "train-rl", tmp_path / "whole", *settings) == 0
    counted = killed_at("-1", 10)
    capfd.readouterr()
    assert on(vllm, "train-rl", tmp_path / "killed", *settings) == MismatchError.exit_status
    said = capfd.readouterr().err.strip().splitlines()[-1]
    assert "was the server restarted" in said
    assert counted[0] >= 10
    assert len(journal(tmp_path / "killed")) == 1  # nothing of other weights was learned from
    assert on(vllm, "train-rl", tmp_path / "killed", *settings) == 0
    whole, killed = journal(tmp_path / "whole"), journal(tmp_path / "killed")
    assert len(whole) == 3
    for one, other in zip(whole, killed, strict=True):
        assert other == pytest.approx(one, abs=1e-5, rel=1e-4)


@full
def test_a_collection_goes_on_when_the_server_is_back(
    vllm: RealServer, tmp_path: Path, killed_at: Callable[[str, int], list[int]]
) -> None:
    collect = ["--num_tasks", "6", "--samples_per_task", "3", "--wave_size", "6"]
    assert on(vllm, "collect", tmp_path / "whole", *collect) == 0
    counted = killed_at("", 12)
    assert on(vllm, "collect", tmp_path / "killed", *collect) == 0
    assert counted[0] > 12
    whole, killed = (list(TrajectoryStore.open(tmp_path / name).read()) for name in ("whole", "killed"))
    assert [(t.token_ids, t.stop) for t in killed] == [(t.token_ids, t.stop) for t in whole]
