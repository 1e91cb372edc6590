"""The current folder comes last on the import path: its random.py or torch.py shadows no library."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlprm.data.demonstrations import demonstrate_all
from rlprm.runtime.accelerate import launch_of
from rlprm.types import End, Split
from tests.toys import corridor

HOSTILE = "raise SystemExit('a file of the current folder was imported')\n"
CONSOLE = "import sys\nfrom rlprm.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n"


@pytest.mark.slow
@pytest.mark.parametrize("entry", ["console script", "module"])
def test_a_stage_loads_the_libraries_and_then_the_users_module(tmp_path: Path, entry: str) -> None:
    work, scripts = tmp_path / "work", tmp_path / "bin"
    scripts.mkdir()
    work.mkdir()
    (scripts / "rlprm").write_text(CONSOLE)
    for name in ("random", "torch", "dataclasses", "logging", "yaml"):
        (work / f"{name}.py").write_text(HOSTILE)
    (work / "my_labels.py").write_text(
        "print('mine')\nfrom rlprm.labels.returns import *\nNEEDS_VALUES = False\n"
    )
    start = ["-m", "rlprm.cli"] if entry == "module" else [str(scripts / "rlprm")]
    arguments = ["label", "--trajectories", "nowhere", "--label_estimator", "my_labels"]
    done = subprocess.run(
        [sys.executable, *start, *arguments], cwd=work, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}, check=False,
    )  # fmt: skip
    assert "a file of the current folder" not in done.stderr
    assert done.stdout == "mine\n"
    assert done.returncode == 2
    assert done.stderr.startswith("rlprm: ArtifactError: no trajectories at nowhere")


@pytest.mark.slow
def test_workers_of_the_expert_start_with_the_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is spawned would otherwise import ``random`` from the current folder."""
    (tmp_path / "random.py").write_text(HOSTILE)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.chdir(tmp_path)
    tasks = corridor.tasks(Split.TRAIN, 0, 2)
    solved = demonstrate_all(tasks, end=End.DECLARED, prompt="none", action_format="action_only", workers=1)
    spawned = demonstrate_all(tasks, end=End.DECLARED, prompt="none", action_format="action_only", workers=2)
    assert list(spawned) == list(solved)
    assert "PYTHONSAFEPATH" not in os.environ


def test_the_launcher_of_several_processes_ignores_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.yaml").write_text("distributed_type: MULTI_CPU\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    launch = launch_of("sft", ["--accelerate_config", "mine.yaml"])
    assert launch is not None
    assert launch.command[1:4] == ["-P", "-m", "accelerate.commands.launch"]
