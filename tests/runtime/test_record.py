"""Stage records: finished work is reused, other work refused, crashed work not taken for finished."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rlprm import __version__
from rlprm.errors import ArtifactError, MismatchError
from rlprm.runtime.record import Stopwatch, is_finished, made, processor, read_record, recorded

SETTINGS = {"lam": 0.95, "levels": ("a", "b"), "limit": None}


def finish(folder: Path) -> None:
    with recorded(folder, "train", SETTINGS) as results:
        results["loss"] = 0.25


def test_a_finished_stage_is_recognised_by_its_settings(tmp_path: Path) -> None:
    assert not is_finished(tmp_path, "train", SETTINGS)
    assert not is_finished(tmp_path / "not made yet", "train", SETTINGS)
    finish(tmp_path)
    assert is_finished(tmp_path, "train", SETTINGS)
    # Order and the difference of tuple and list do not survive JSON, and do not matter.
    assert is_finished(tmp_path, "train", {"limit": None, "levels": ["a", "b"], "lam": 0.95})


@pytest.mark.parametrize(
    ("stage", "settings", "complaint"),
    [
        ("train", {**SETTINGS, "lam": 0.9}, r"lam: 0\.95 there, 0\.9 now"),
        ("train", {**SETTINGS, "new": 1}, "new: None there, 1 now"),
        ("train", {"levels": ["a", "b"], "limit": None}, r"lam: 0\.95 there, None now"),
        ("other", SETTINGS, "holds the results of train; choose another output_dir"),
    ],
)
def test_other_settings_are_refused_by_name(
    tmp_path: Path, stage: str, settings: dict[str, object], complaint: str
) -> None:
    finish(tmp_path)
    with pytest.raises(MismatchError, match=complaint):
        is_finished(tmp_path, stage, settings)


def test_a_record_holds_settings_results_and_time(tmp_path: Path) -> None:
    finish(tmp_path)
    record = read_record(tmp_path)
    assert record["stage"] == "train"
    assert record["version"] == __version__
    assert record["results"] == {"loss": 0.25}
    assert record["config"] == {"lam": 0.95, "levels": ["a", "b"], "limit": None}
    assert 0 <= record["seconds"] < 60


def test_a_record_holds_the_code_that_ran_and_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {"ls-files": "record.py", "rev-parse": "abc123", "status": " M rlprm/types.py"}
    monkeypatch.setattr("rlprm.runtime.record._git", lambda command, *_: answers[command])
    with recorded(tmp_path, "train", SETTINGS):
        answers["rev-parse"] = "committed while the stage ran"
    found = read_record(tmp_path)["made"]
    assert (found["commit"], found["changed_files"]) == ("abc123", True)
    assert found["rlprm"] == __version__
    assert found["processor"] == processor()
    assert found["libraries"]["torch"] == torch.__version__
    answers["status"] = ""
    assert made()["changed_files"] is False


def test_an_installed_package_has_no_commit_even_within_another_repository(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = {"ls-files": None, "rev-parse": "of another project", "status": ""}
    monkeypatch.setattr("rlprm.runtime.record._git", lambda command, *_: answers[command])
    assert (made()["commit"], made()["changed_files"]) == (None, None)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_crash_leaves_no_record(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), recorded(tmp_path, "train", SETTINGS):
        raise error
    assert list(tmp_path.iterdir()) == []
    assert not is_finished(tmp_path, "train", SETTINGS)
    with pytest.raises(ArtifactError):
        read_record(tmp_path)


def test_a_stopwatch_adds_up_by_name_also_over_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 1.5, 10.0, 12.0, 20.0, 20.25])
    monkeypatch.setattr("rlprm.runtime.record.time.perf_counter", lambda: next(now))
    watch = Stopwatch()
    with watch.time("act"):
        pass
    with pytest.raises(ValueError, match="x"), watch.time("score"):
        raise ValueError("x")
    with watch.time("act"):
        pass
    assert watch.seconds == {"act": 1.75, "score": 2.0}
