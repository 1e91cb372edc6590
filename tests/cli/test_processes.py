"""Stages that generate, launched as two processes: the same results as one, written once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlprm import collect, evaluate
from rlprm.collect import CollectConfig
from rlprm.config import parse
from rlprm.evaluate import EvaluateConfig
from rlprm.stage import read_record
from tests.cli.conftest import EPISODES, Pipeline
from tests.cli.test_evaluate import summary_of

ROOT = Path(__file__).parents[2]


def launch(script: str, arguments: list[str]) -> str:
    """Run a script in two processes, as a user would, and return what they print."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {k: v for k, v in os.environ.items() if k not in ("WORLD_SIZE", "RANK", "LOCAL_RANK")}
    done = subprocess.run(
        [*command, f"scripts/{script}.py", *arguments],
        cwd=ROOT,
        env={**environment, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.slow
def test_two_processes_collect_what_one_collects(pipeline: Pipeline, tmp_path: Path) -> None:
    arguments = [*EPISODES, "--model", pipeline.policy, "--num_tasks", "6", "--samples_per_task", "4"]
    arguments += ["--temperature", "1.5", "--max_new_tokens", "8", "--wave_size", "5"]
    collect.run(parse(CollectConfig, [*arguments, "--output_dir", str(tmp_path / "alone")]))
    launch("collect", [*arguments, "--output_dir", str(tmp_path / "shared")])
    alone, shared = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir() if path.name != "stage.json"}
        for name in ("alone", "shared")
    )
    assert len([name for name in alone if name.startswith("wave-")]) == 5
    assert shared == alone
    records = [read_record(tmp_path / name) for name in ("alone", "shared")]
    assert records[0]["results"] == records[1]["results"]


@pytest.mark.slow
def test_two_processes_evaluate_to_the_numbers_of_one(pipeline: Pipeline, tmp_path: Path) -> None:
    arguments = [*pipeline.evaluation, "--wave_size", "8"]
    evaluate.run(parse(EvaluateConfig, [*arguments, "--output_dir", str(tmp_path / "alone")]))
    printed = launch("evaluate", [*arguments, "--output_dir", str(tmp_path / "shared")])
    assert printed.count("Success in %") == 1
    alone, shared = (summary_of(tmp_path / name) for name in ("alone", "shared"))
    assert shared["evaluation"] == alone["evaluation"]
    assert read_record(tmp_path / "shared")["stage"] == "evaluate"
