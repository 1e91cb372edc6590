"""The ten lines of Python that README shows run on what a quickstart leaves behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlprm.runtime.config import parse
from rlprm.stages import sft
from rlprm.stages.sft import SFTStageConfig

LINES = Path(__file__).parents[2] / "examples" / "ten_lines.py"


def make_policy(folder: Path) -> None:
    """Make, within seconds, a policy where the quickstart leaves its own; it knows how actions are written."""
    sft.run(
        parse(
            SFTStageConfig,
            ["--environment", "babyai", "--env_kwargs.levels", "[GoToLocalS8N7, PickupLoc]", "--size", "xs",
             "--context_length", "2048", "--workers", "1", "--num_demonstrations", "48",
             "--num_train_epochs", "2", "--learning_rate", "5e-3", "--per_device_train_batch_size", "8",
             "--disable_tqdm", "true", "--bf16", "false", "--output_dir", str(folder)],
        )
    )  # fmt: skip


@pytest.mark.slow
def test_the_ten_lines_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_policy(tmp_path / "runs" / "quickstart" / "policy")
    found: dict[str, Any] = {"__name__": "ten_lines"}
    source = LINES.read_text(encoding="utf-8")
    # Fewer of everything than a reader would take.
    smaller = {"count=64": "count=12", "count=32": "count=4", "iterations=4": "iterations=1, tasks_per_iteration=4, "
               "eval_every=0, test_tasks=4, test_samples=1, repeat_probe=0"}  # fmt: skip
    for long, short in smaller.items():
        assert long in source
        source = source.replace(long, short)
    exec(compile(source, str(LINES), "exec"), found)
    assert len(found["episodes"]) == 12 * 4
    assert len(found["labels"]) == len(found["episodes"])
    assert len(found["best"]) == len(found["beams"]) == 4
    assert found["summary"]["iterations"] == 1
    assert (tmp_path / "runs" / "better" / "model.safetensors").exists()
