"""What RL tests share: a policy and a PRM made once, runs in one line, and plain gradient descent."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from rlprm.rl.config import RLConfig
from rlprm.rl.engine import accelerated
from rlprm.rl.trainer import RLTrainer
from rlprm.stages import train_rl as stage
from tests.rl import walker

Run = Callable[..., dict[str, Any]]
BASELINE = {"reward": "outcome", "advantage": "leave_one_out", "prm": ""}
"""The reward and estimator that need no PRM."""


def assert_close(found: Any, expected: Any, tolerance: float, name: str) -> None:
    """Compare the numbers of two entries of a journal, nested ones one by one."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), name
        for key, value in expected.items():
            assert_close(found[key], value, tolerance, f"{name}.{key}")
        return
    assert found == pytest.approx(expected, abs=tolerance, rel=tolerance), name


@pytest.fixture(scope="session")
def walker_policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that reaches its goal about every other time; never to be written to."""
    folder = tmp_path_factory.mktemp("walker") / "policy"
    walker.make_policy(folder)
    return folder


@pytest.fixture(scope="session")
def walker_prm(walker_policy: Path) -> Path:
    """A PRM of that policy's episodes; never to be written to."""
    folder = walker_policy.with_name("prm")
    walker.make_prm(folder, walker_policy)
    return folder


@pytest.fixture(scope="session")
def settings(walker_policy: Path, walker_prm: Path) -> dict[str, Any]:
    """Of a small run that learns quickly and measures nothing beside; never to be changed."""
    return walker.settings(walker_policy, walker_prm)


@pytest.fixture
def run(settings: dict[str, Any], tmp_path: Path) -> Run:
    """Run the stage with some settings changed, all but the drawing; returns its summary."""

    def start(folder: str = "rl", **changes: Any) -> dict[str, Any]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stage, "plot_curves", lambda *_: None)  # takes longer than a small run
            return stage.run(RLConfig(**{**settings, "output_dir": str(tmp_path / folder), **changes}))

    return start


@pytest.fixture
def plain_descent(monkeypatch: pytest.MonkeyPatch) -> None:
    """AdamW divides by the size of a gradient: rounding would be blown up where it is (nearly) zero."""
    monkeypatch.setattr(accelerated, "AdamW", descent)


def descent(groups: Iterable[dict[str, Any]], **_: Any) -> torch.optim.SGD:
    """The same parameters and step sizes, and nothing else."""
    return torch.optim.SGD(groups)


@pytest.fixture
def trainers(monkeypatch: pytest.MonkeyPatch) -> list[RLTrainer]:
    """The trainers of all runs, as they are when training ends."""
    seen: list[RLTrainer] = []
    train = RLTrainer.train

    def watched(self: RLTrainer) -> None:
        train(self)
        seen.append(self)

    monkeypatch.setattr(RLTrainer, "train", watched)
    return seen


def rows(folder: Path) -> list[dict[str, Any]]:
    """The metrics of each iteration of a run."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def column(folder: Path, name: str) -> list[float]:
    """One metric of every iteration of a run."""
    return [row[name] for row in rows(folder)]


def column_of_those_that_have(folder: Path, name: str) -> dict[int, float]:
    """One metric of the iterations that have it."""
    return {row["iteration"]: row[name] for row in rows(folder) if name in row}
