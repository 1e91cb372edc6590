"""Training the PRM on fresh episodes: which are kept, when it is left alone, and as what it is trained."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlprm.data.store import TrajectoryStore
from rlprm.errors import ConfigError
from rlprm.labels import td_gae
from rlprm.prm.config import PRMConfig
from rlprm.rl.config import RLConfig
from rlprm.rl.refresh import FreshTrajectories
from rlprm.runtime.processes import SINGLE_PROCESS
from rlprm.stages.train_rl_parts.refresh import check_refresh, settings_of_refresh
from rlprm.types import Trajectory
from tests.rl import toy
from tests.toys.manifests import manifest
from tests.toys.trajectories import trajectory


def fresh_in(folder: Path, **refresh_kwargs: Any) -> FreshTrajectories:
    settings = {"prm": "prm", "refresh_every": 2, "output_dir": str(folder / "rl")}
    return FreshTrajectories(
        toy.config(**settings, refresh_kwargs=refresh_kwargs), SINGLE_PROCESS, never_called
    )


def never_called(prm: str, trajectories: Path, output_dir: Path) -> None:
    raise AssertionError("no PRM is to be trained")


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


def given(fresh: FreshTrajectories, prm: str) -> PRMConfig:
    """The settings that the PRM is trained with."""
    return settings_of_refresh(fresh.config, prm, "episodes", "out")


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
    tmp_path: Path, prm: Callable[..., str], learned: str, chosen: dict[str, str], trains: bool
) -> None:
    """Failures with different scores would teach 0 everywhere to a PRM that predicts success."""
    started: list[Any] = []
    fresh = fresh_in(tmp_path, **chosen)
    fresh.refresh = lambda *folders: started.append(folders)
    fresh.add(0, [episode(False, "a", score=0.3)])
    fresh.add(1, [episode(False, "b", score=0.7)])
    before = prm(outcome=learned)
    assert (fresh.train(1, before) != before) is trains
    folders = (before, fresh.folder / "trajectories-000000", fresh.folder / "prm-000002")
    assert started == [folders] * trains


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
    assert found.label_estimator == "returns"
    assert found.label_estimator_kwargs == {}
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "monte_carlo labels from a file" in record.message


def test_fresh_episodes_are_labelled_by_the_prms_estimator(
    fresh: FreshTrajectories, prm: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    found = given(fresh, prm(label_estimator="td_gae", label_estimator_kwargs={"lam": 0.9}))
    assert (found.label_estimator, found.label_estimator_kwargs) == ("td_gae", {"lam": 0.9})
    assert not caplog.records


@pytest.mark.parametrize("name", ["my.labels.td_two_step", "labels/mine.py", "mylabels"])
def test_an_estimator_of_the_users_own_is_loaded_only_if_the_settings_name_it(
    tmp_path: Path, prm: Callable[..., str], name: str
) -> None:
    """A PRM's manifest is a file of whoever made the PRM: the code that it names is not imported."""
    folder = prm(label_estimator=name, label_estimator_kwargs={"lam": 0.9})
    fresh = fresh_in(tmp_path)
    for refused in (lambda: given(fresh, folder), lambda: check_refresh(with_prm(fresh, folder))):
        with pytest.raises(ConfigError, match=f"refresh_kwargs.label_estimator: nothing given.*{name}"):
            refused()


def test_an_estimator_that_the_settings_name_gets_the_settings_of_the_prms(
    tmp_path: Path, prm: Callable[..., str]
) -> None:
    own = tmp_path / "mine.py"
    shutil.copy(str(td_gae.__file__), own)
    folder = prm(label_estimator=str(own), label_estimator_kwargs={"lam": 0.9})
    named = fresh_in(tmp_path, label_estimator=str(own))
    found = given(named, folder)
    assert (found.label_estimator, found.label_estimator_kwargs) == (str(own), {"lam": 0.9})
    check_refresh(with_prm(named, folder))


def test_a_tracker_of_the_refresh_is_refused(tmp_path: Path, prm: Callable[..., str]) -> None:
    """The tracker's run is the one of RL: the metrics of a PRM would be among its iterations."""
    fresh = fresh_in(tmp_path, report_to="wandb")
    with pytest.raises(ConfigError, match=r"refresh_kwargs.report_to: got .*wandb.*, allowed: none"):
        check_refresh(with_prm(fresh, prm()))


def test_another_estimator_does_not_get_the_settings_of_the_prms(
    tmp_path: Path, prm: Callable[..., str]
) -> None:
    found = given(fresh_in(tmp_path, label_estimator="outcome"), prm())
    assert found.label_estimator == "outcome"
    assert found.label_estimator_kwargs == {}
    assert given(fresh_in(tmp_path, beta=0.2), prm()).label_estimator_kwargs == {"lam": 0.95}


@pytest.mark.parametrize(("head", "scale"), [("scalar", None), ("lm", 0.3)])
def test_a_refreshed_prm_keeps_its_head(
    fresh: FreshTrajectories, prm: Callable[..., str], head: str, scale: float | None
) -> None:
    found = given(fresh, prm(head=head, lm_scale=scale))
    assert found.head == head
    assert scale is None or found.lm_scale == scale


def test_a_refreshed_prm_keeps_the_weight_of_its_last_step(
    fresh: FreshTrajectories, prm: Callable[..., str]
) -> None:
    assert given(fresh, prm(last_step_weight=3.0)).last_step_weight == 3.0


@pytest.mark.parametrize(
    ("rows", "accumulated", "processes", "shared"),
    [(8, 1, 1, (8, 1)), (8, 1, 2, (4, 1)), (4, 6, 2, (4, 3)), (4, 3, 2, (3, 2)), (4, 2, 8, (1, 1))],
)
def test_several_processes_share_the_rows_of_one_processs_update(
    tmp_path: Path,
    prm: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    rows: int,
    accumulated: int,
    processes: int,
    shared: tuple[int, int],
) -> None:
    chosen = {"per_device_train_batch_size": rows, "gradient_accumulation_steps": accumulated}
    fresh = fresh_in(tmp_path, **chosen)
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    found = given(fresh, prm())
    assert (found.per_device_train_batch_size, found.gradient_accumulation_steps) == shared
    monkeypatch.setenv("WORLD_SIZE", "5")
    with pytest.raises(ConfigError, match=r"got \d+, allowed: a multiple of the 5 processes"):
        check_refresh(with_prm(fresh, prm()))


def test_without_refreshing_nothing_is_kept(tmp_path: Path) -> None:
    config = toy.config(output_dir=str(tmp_path / "rl"))
    assert not FreshTrajectories(config, SINGLE_PROCESS, never_called).add(0, [episode(True, "a")])
    assert not (tmp_path / "rl").exists()
