"""The ten lines of Python that README shows run on what a quickstart leaves behind."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.toys.pipeline import Pipeline

LINES = Path(__file__).parents[2] / "examples" / "ten_lines.py"

SMALLER = {
    '"babyai", levels=["FindObjS7", "GoToObjMazeS7", "PickupAbove"]': ('"tests.toys.corridor", length=4'),
    "start=300_000, count=64": "start=3000, count=12",
    "count=32": "count=4",
    "temperature=1.0": "temperature=1.5",
    "round_limit=12": "round_limit=6",
    "iterations=4": (
        "iterations=1, tasks_per_iteration=4, eval_every=0, test_tasks=4, test_samples=1, max_new_tokens=8"
    ),
}
"""The environment of a policy that is made within seconds, and fewer of everything than a reader takes."""


@pytest.mark.slow
def test_the_ten_lines_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pipeline: Pipeline) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(pipeline.policy, tmp_path / "runs" / "quickstart" / "policy")
    source = LINES.read_text(encoding="utf-8")
    for text, smaller in SMALLER.items():
        assert text in source
        source = source.replace(text, smaller)
    found: dict[str, Any] = {"__name__": "ten_lines"}
    exec(compile(source, str(LINES), "exec"), found)
    assert len(found["labels"]) == len(found["episodes"]) == 12 * 4
    assert len(found["best"]) == len(found["beams"]) == 4
    assert found["summary"]["iterations"] == 1
    assert (tmp_path / "runs" / "better" / "model.safetensors").exists()
