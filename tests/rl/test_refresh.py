"""Training the PRM on fresh episodes: which are kept, when it is left alone, and as what it is trained."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlprm.data.store import TrajectoryStore
from rlprm.errors import ConfigError
from rlprm.rl.config import RLConfig
from rlprm.rl.refresh import FreshTrajectories, check_relabelling
from rlprm.runtime.processes import SINGLE_PROCESS
from rlprm.types import Trajectory
from tests.rl import toy
from tests.toys.manifests import manifest
from tests.toys.trajectories import trajectory


def fresh_in(folder: Path, **refresh_kwargs: Any) -> FreshTrajectories:
    settings = {"prm": "prm", "refresh_every": 2, "output_dir": str(folder / "rl")}
    return FreshTrajectories(toy.config(**settings, refresh_kwargs=refresh_kwargs), SINGLE_PROCESS)


@pytest.fixture
def fresh(tmp_path: Path) -> FreshTrajectories:
    return fresh_in(tmp_path)


@pytest.fixture
def prm(tmp_path: Path) -> Callable[..., str]:
    """Leave what a PRM says of itself in a folder."""

    def make(**changes: Any) -> str:
        manifest("t", **changes).save(tmp_path / "prm")
        return str(tmp_path / "prm")

    return make


def with_prm(fresh: FreshTrajectories, folder: str) -> RLConfig:
    """The run's settings with a PRM that is there."""
    return replace(fresh.config, prm=folder, refresh_kwargs={**fresh.config.refresh_kwargs})


def episode(success: bool, task: str, sample: int = 0, score: float | None = None) -> Trajectory:
    return trajectory(".ac.ac", success=success, task=task, sample=sample, score=score, policy="toy-0")


def given(fresh: FreshTrajectories, prm: str) -> dict[str, str]:
    """The settings that the stage is called with."""
    words = fresh.arguments(1, prm, "out")
    return {name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2], strict=True)}


def test_episodes_of_one_outcome_or_one_task_leave_the_prm_as_it_is(
    fresh: FreshTrajectories, prm: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    # A policy that has learned its tasks must not end its own training.
    assert not fresh.add(0, [episode(True, "a"), episode(True, "b")])
    assert fresh.add(1, [episode(True, "c")])
    assert fresh.train(1, prm()) == prm()
    assert not fresh.add(2, [episode(True, "a"), episode(False, "a", 1)])
    assert fresh.add(3, [episode(False, "a", 2)])
    assert fresh.train(3, prm()) == prm()
    assert caplog.text.count("the PRM stays as it is") == 2


@pytest.mark.parametrize(
    ("learned", "chosen", "trains"),
    [("success", {}, False), ("score", {}, True), ("success", {"outcome": "score"}, True)],
)
def test_outcomes_differ_if_the_number_differs_that_the_prm_learns(
    tmp_path: Path,
    prm: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    learned: str,
    chosen: dict[str, str],
    trains: bool,
) -> None:
    """Failures with different scores would teach 0 everywhere to a PRM that predicts success."""
    started: list[Any] = []
    monkeypatch.setattr(
        subprocess, "run", lambda words, **_: started.append(words) or SimpleNamespace(returncode=0)
    )
    fresh = fresh_in(tmp_path, **chosen)
    fresh.add(0, [episode(False, "a", score=0.3)])
    fresh.add(1, [episode(False, "b", score=0.7)])
    before = prm(outcome=learned)
    assert (fresh.train(1, before) != before) is trains
    assert len(started) == trains


def test_episodes_that_a_killed_run_left_behind_are_not_mixed_in(fresh: FreshTrajectories) -> None:
    fresh.add(0, [episode(True, "a")])
    fresh.add(1, [episode(True, "b")])
    fresh.add(0, [episode(False, "c")])  # from the start, perhaps with other settings
    stored = TrajectoryStore.open(fresh.folder / "trajectories-000000").read()
    assert [t.task.id for t in stored] == ["c"]
    fresh.add(1, [episode(True, "d")])
    fresh.add(1, [episode(True, "e")])  # from a checkpoint in the middle
    stored = TrajectoryStore.open(fresh.folder / "trajectories-000000").read()
    assert [t.task.id for t in stored] == ["c", "e"]
    assert {t.policy for t in stored} == {"toy-rl"}


def test_fresh_episodes_of_a_prm_with_labels_from_a_file_are_labelled_by_their_outcomes(
    fresh: FreshTrajectories, prm: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    """The file had labels of the episodes the PRM was trained on, and of no others."""
    found = given(fresh, prm(label_estimator="monte_carlo", label_estimator_kwargs={"rollouts": 8}))
    assert found["label_estimator"] == "returns"
    assert not any(name.startswith("label_estimator_kwargs") for name in found)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "monte_carlo labels from a file" in record.message


def test_fresh_episodes_are_labelled_by_the_prms_estimator(
    fresh: FreshTrajectories, prm: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    found = given(fresh, prm(label_estimator="td_gae", label_estimator_kwargs={"lam": 0.9}))
    assert (found["label_estimator"], found["label_estimator_kwargs.lam"]) == ("td_gae", "0.9")
    assert not caplog.records


@pytest.mark.parametrize("name", ["my.labels.td_two_step", "labels/mine.py", "mylabels"])
def test_an_estimator_of_the_users_own_is_loaded_only_if_the_settings_name_it(
    tmp_path: Path, prm: Callable[..., str], name: str
) -> None:
    """A PRM's manifest is a file of whoever made the PRM: the code that it names is not imported."""
    folder = prm(label_estimator=name, label_estimator_kwargs={"lam": 0.9})
    fresh = fresh_in(tmp_path)
    for refused in (lambda: given(fresh, folder), lambda: check_relabelling(with_prm(fresh, folder))):
        with pytest.raises(ConfigError, match=f"refresh_kwargs.label_estimator: nothing given.*{name}"):
            refused()
    named = fresh_in(tmp_path, label_estimator=name)
    found = given(named, folder)
    assert (found["label_estimator"], found["label_estimator_kwargs.lam"]) == (name, "0.9")
    check_relabelling(with_prm(named, folder))


def test_another_estimator_does_not_get_the_settings_of_the_prms(
    tmp_path: Path, prm: Callable[..., str]
) -> None:
    found = given(fresh_in(tmp_path, label_estimator="outcome"), prm())
    assert found["label_estimator"] == "outcome"
    assert "label_estimator_kwargs.lam" not in found
    assert given(fresh_in(tmp_path, beta=0.2), prm())["label_estimator_kwargs.lam"] == "0.95"


@pytest.mark.parametrize(("head", "scale"), [("scalar", None), ("lm", 0.3)])
def test_a_refreshed_prm_keeps_its_head(
    fresh: FreshTrajectories, prm: Callable[..., str], head: str, scale: float | None
) -> None:
    found = given(fresh, prm(head=head, lm_scale=scale))
    assert found["head"] == head
    assert found.get("lm_scale") == (None if scale is None else str(scale))


def test_a_refreshed_prm_keeps_the_weight_of_its_last_step(
    fresh: FreshTrajectories, prm: Callable[..., str]
) -> None:
    assert given(fresh, prm(last_step_weight=3.0))["last_step_weight"] == "3.0"


def test_without_refreshing_nothing_is_kept(tmp_path: Path) -> None:
    config = toy.config(output_dir=str(tmp_path / "rl"))
    assert not FreshTrajectories(config, SINGLE_PROCESS).add(0, [episode(True, "a")])
    assert not (tmp_path / "rl").exists()
