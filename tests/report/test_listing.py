"""Runs as text: lists, settings that differ, and paired differences."""

from __future__ import annotations

from pathlib import Path

from rlprm.report.finding import find_run, find_runs
from rlprm.report.listing import compare, listing
from tests.report.runs import evaluation, record, rl


def test_a_list_has_stages_and_the_main_result(tmp_path: Path) -> None:
    evaluation(tmp_path / "one" / "evaluation")
    rl(tmp_path / "two")
    (tmp_path / "empty").mkdir()
    text = listing(find_runs(tmp_path), str(tmp_path))
    assert "evaluation: one sample 2.0 %, best of 1, prm 50.0 %" in text
    assert "two: one sample 25.0 % before, 25.0 % after" in text
    assert "empty" not in text


def test_policies_are_compared_on_the_tasks_that_both_met(tmp_path: Path) -> None:
    tasks = {str(i): 0.0 for i in range(40)}
    rl(tmp_path / "a", tasks)
    rl(tmp_path / "b", {name: float(int(name) % 2) for name in tasks} | {"other": 1.0})
    record(tmp_path / "b", "train-rl", {"seed": 0, "learning_rate": 3e-4})
    text = compare([find_run(tmp_path / name) for name in "ab"])
    assert "train-rl learning_rate: 0.0001 | 0.0003" in text
    assert "b - a: +50.0 [" in text
    assert "(40 tasks)" in text


def test_runs_of_different_tasks_are_not_compared(tmp_path: Path) -> None:
    rl(tmp_path / "a", {"x": 1.0})
    rl(tmp_path / "b", {"y": 1.0})
    text = compare([find_run(tmp_path / name) for name in "ab"])
    assert "b and a were measured on different tasks" in text
