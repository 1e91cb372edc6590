"""Two processes share all work of a run and come to the result of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from rlprm.runtime.processes import DEBUG_COLLECTIVES
from tests.rl import two_processes
from tests.rl.conftest import assert_close, rows

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Done:
    """What all kinds of runs left behind."""

    folder: Path
    episodes: Any

    def weights(self, kind: str) -> dict[str, Tensor]:
        return load_file(self.folder / kind / "model.safetensors")


@pytest.fixture(scope="module")
def alone(walker_policy: Path, walker_prm: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("alone")
    seen = two_processes.run_all(walker_policy, walker_prm, folder)
    return Done(folder, json.loads(json.dumps(seen)))


@pytest.fixture(scope="module")
def shared(walker_policy: Path, walker_prm: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("shared")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    # A real launch knows nothing of this process.
    environment = {k: v for k, v in os.environ.items() if k not in ("WORLD_SIZE", "RANK", "LOCAL_RANK")}
    done = subprocess.run(
        [*command, "--module", "tests.rl.two_processes", str(walker_policy), str(walker_prm), str(folder)],
        cwd=ROOT,
        env={**environment, "OMP_NUM_THREADS": "1", DEBUG_COLLECTIVES: "200"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert (folder / "episodes.json").exists(), done.stderr[-4000:]
    return Done(folder, json.loads((folder / "episodes.json").read_text()))


@pytest.mark.parametrize("kind", two_processes.KINDS)
def test_the_same_episodes_numbers_and_weights(alone: Done, shared: Done, kind: str) -> None:
    assert shared.episodes[kind] == alone.episodes[kind]
    one, two = rows(alone.folder / kind), rows(shared.folder / kind)
    assert len(one) == len(two) == 3
    for before, after in zip(one, two, strict=True):
        assert before.keys() == after.keys()
        for name, number in before.items():
            if not name.startswith("time/"):
                assert_close(after[name], number, 1e-5, name)
    weights, again = alone.weights(kind), shared.weights(kind)
    assert weights.keys() == again.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(again[name], weight, atol=1e-5, rtol=0, msg=name)


def test_something_was_learned(alone: Done, walker_policy: Path) -> None:
    before = load_file(walker_policy / "model.safetensors")
    for kind in two_processes.KINDS:
        after = alone.weights(kind)
        assert max((after[name] - before[name]).abs().max() for name in before) > 1e-3, kind


def test_what_is_written_once_is_the_same(alone: Done, shared: Done) -> None:
    summaries = [json.loads((done.folder / "progress/summary.json").read_text()) for done in (alone, shared)]
    for name in ("before", "after", "difference", "selected_iteration", "env_steps", "tokens"):
        assert summaries[0][name] == summaries[1][name]
    files = [
        sorted(str(path.relative_to(done.folder)) for path in done.folder.glob("*/*"))
        for done in (alone, shared)
    ]
    assert files[0] == files[1]
