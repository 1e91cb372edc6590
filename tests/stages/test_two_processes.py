"""Stages that generate, launched as two processes: the same results as one, written once."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rlprm.data.label_files import LABELS
from rlprm.runtime.config import parse
from rlprm.runtime.record import read_record
from rlprm.stages import collect, estimate, evaluate, probe_actions
from rlprm.stages.estimate import HARD_LABELS
from rlprm.stages.settings import CollectConfig, EstimateConfig, EvaluateConfig, ProbeActionsConfig
from tests.toys.pipeline import EPISODES, Pipeline, summary_of

ROOT = Path(__file__).parents[2]


def launch(program: list[str], arguments: list[str]) -> str:
    """Run a script or a module in two processes, as a user would, and return what they print."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {k: v for k, v in os.environ.items() if k not in ("WORLD_SIZE", "RANK", "LOCAL_RANK")}
    done = subprocess.run(
        [*command, *program, *arguments],
        cwd=ROOT,
        env={**environment, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def assert_the_same(folder: Path, waves: int) -> None:
    """Compare what stands in ``alone`` and in ``shared``: every file byte by byte, and the results."""
    alone, shared = (
        {path.name: path.read_bytes() for path in (folder / name).iterdir() if path.name != "stage.json"}
        for name in ("alone", "shared")
    )
    assert len([name for name in alone if name.startswith("wave-")]) == waves
    assert shared == alone
    records = [read_record(folder / name) for name in ("alone", "shared")]
    assert records[0]["results"] == records[1]["results"]


def to_rounding(value: Any) -> Any:
    """Make all floats of nested JSON equal to those that differ by rounding alone."""
    if isinstance(value, dict):
        return {key: to_rounding(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [to_rounding(inner) for inner in value]
    return pytest.approx(value, rel=1e-4) if isinstance(value, float) else value


@pytest.mark.slow
def test_two_processes_collect_what_one_collects(pipeline: Pipeline, tmp_path: Path) -> None:
    arguments = [*EPISODES, "--model", pipeline.policy, "--num_tasks", "6", "--samples_per_task", "4"]
    arguments += ["--temperature", "1.5", "--max_new_tokens", "8", "--wave_size", "5"]
    collect.run(parse(CollectConfig, [*arguments, "--output_dir", str(tmp_path / "alone")]))
    launch(["scripts/collect.py"], [*arguments, "--output_dir", str(tmp_path / "shared")])
    assert_the_same(tmp_path, waves=5)


@pytest.mark.slow
def test_two_processes_evaluate_to_the_numbers_of_one(pipeline: Pipeline, tmp_path: Path) -> None:
    arguments = [*pipeline.evaluation, "--wave_size", "8"]
    evaluate.run(parse(EvaluateConfig, [*arguments, "--output_dir", str(tmp_path / "alone")]))
    printed = launch(["scripts/evaluate.py"], [*arguments, "--output_dir", str(tmp_path / "shared")])
    assert printed.count("Success in %") == 1
    alone, shared = (summary_of(tmp_path / name) for name in ("alone", "shared"))
    for part in ("evaluation", "aggregation", "quality"):
        assert shared[part] == to_rounding(alone[part])
    assert read_record(tmp_path / "shared")["stage"] == "evaluate"


@pytest.mark.slow
def test_two_processes_estimate_the_labels_of_one(pipeline: Pipeline, tmp_path: Path) -> None:
    arguments = [*pipeline.acting, "--num_tasks", "3", "--samples_per_task", "2", "--rollouts", "4"]
    arguments += ["--wave_size", "12"]
    estimate.run(parse(EstimateConfig, [*arguments, "--output_dir", str(tmp_path / "alone")]))
    states = read_record(tmp_path / "alone")["results"]["states"]
    launch(["--module", "rlprm.cli", "estimate"], [*arguments, "--output_dir", str(tmp_path / "shared")])
    assert (tmp_path / "shared" / LABELS).exists()
    assert (tmp_path / "shared" / HARD_LABELS).exists()
    assert_the_same(tmp_path, waves=math.ceil(states / 3))


@pytest.mark.slow
def test_two_processes_probe_what_one_probes(pipeline: Pipeline, tmp_path: Path) -> None:
    arguments = [*pipeline.acting, "--num_states", "4", "--rollouts", "4", "--wave_size", "12"]
    probe_actions.run(parse(ProbeActionsConfig, [*arguments, "--output_dir", str(tmp_path / "alone")]))
    launch(["--module", "rlprm.cli", "probe-actions"], [*arguments, "--output_dir", str(tmp_path / "shared")])
    waves = len(list((tmp_path / "alone").glob("wave-*")))
    assert waves > 1
    assert_the_same(tmp_path, waves)
