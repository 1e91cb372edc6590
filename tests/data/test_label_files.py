"""Label files come back as they were written, and are not mistaken for those of other trajectories."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlprm.data.label_files import LABELS, LabelFile, write_labels
from rlprm.errors import ArtifactError, DataError, MismatchError
from rlprm.types import Step, StepLabels
from tests.toys.trajectories import of_steps

MADE = [of_steps(steps=2, sample=n) for n in range(3)]
ROWS = [
    StepLabels((0.5, 0.25, 0.0), (), (1.0, 1.0, 1.0)),
    StepLabels((0.1, 0.2, 1.0), (0.1, 0.8), (0.0, 1.0, 2.0)),
    StepLabels((0.0, 0.0, 1.0), (), (0.0, 0.0, 1.0)),
]


def write(path: Path, count: int = 3) -> Path:
    write_labels(
        path,
        MADE[:count],
        ROWS[:count],
        label_estimator="mine",
        label_estimator_kwargs={"n": 8},
        outcome="success",
        cost=7,
    )
    return path


def test_labels_come_back_with_what_they_are(tmp_path: Path) -> None:
    found = LabelFile.read(write(tmp_path / "x.jsonl"))
    assert [found.labels_of(t) for t in MADE] == ROWS
    assert found.meta == {
        "label_estimator": "mine",
        "label_estimator_kwargs": {"n": 8},
        "outcome": "success",
        "cost": 7,
    }
    assert found.has_progress
    assert not LabelFile.read(write(tmp_path / "y.jsonl", 1)).has_progress


def test_a_folder_stands_for_the_labels_in_it(tmp_path: Path) -> None:
    write(tmp_path / LABELS)
    assert LabelFile.read(tmp_path).rows == LabelFile.read(tmp_path / LABELS).rows


def test_a_trajectory_without_labels_is_told_from_one_that_is_another(tmp_path: Path) -> None:
    found = LabelFile.read(write(tmp_path / LABELS, 2))
    assert found.labels_of(MADE[2]) is None
    assert found.labels_of(of_steps(steps=2, task="b")) is None
    first = MADE[0].steps[0]
    other = replace(MADE[0], steps=(Step(first.start, first.end, "another"), MADE[0].steps[1]))
    for stranger in (other, of_steps(steps=3)):
        with pytest.raises(MismatchError, match="sample 0 of task 'a': its actions differ"):
            found.labels_of(stranger)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"promise": [0.5]}, "1 promise targets, 3 weights"),
        ({"weight": [1.0]}, "3 promise targets, 1 weights"),
        ({"progress": [0.5]}, "1 progress targets for 2 actions"),
        ({"promise": [0.5, float("nan"), 0.0]}, "not finite"),
        ({"promise": None}, "TypeError"),
        ({"sample": 0}, "sample 0 of task 'a' is there twice"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    path = write(tmp_path / LABELS)
    lines = path.read_text().splitlines()
    lines[1] = json.dumps({**json.loads(lines[1]), **change})
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=f"line 2.*{complaint}"):
        LabelFile.read(path)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no labels at"):
        LabelFile.read(tmp_path / "nowhere.jsonl")
    with pytest.raises(ArtifactError, match="no labels at"):
        LabelFile.read(tmp_path)
    path = write(tmp_path / "x.jsonl")
    (tmp_path / "x.meta.json").write_text('{"label_estimator": "mine"}')
    with pytest.raises(
        DataError, match="must hold a mapping with label_estimator, label_estimator_kwargs, outcome"
    ):
        LabelFile.read(path)
    (tmp_path / "x.meta.json").unlink()
    with pytest.raises(ArtifactError, match=r"no file .*x\.meta\.json"):
        LabelFile.read(path)
