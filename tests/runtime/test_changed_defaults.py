"""A default of an environment that has changed: old records mean the old default, new ones state theirs."""

from __future__ import annotations

import inspect
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

import rlprm
from rlprm import envs
from rlprm.api import learning
from rlprm.data.store import TrajectoryStore
from rlprm.envs import math
from rlprm.errors import MismatchError
from rlprm.models.manifest import FILE, Manifest
from rlprm.runtime.parsing.renames import (
    CHANGED_DEFAULTS,
    current_settings,
    with_new_defaults,
    with_old_defaults,
)
from rlprm.runtime.provenance import differences, episode_settings, settings_of_model
from rlprm.runtime.record import is_finished, recorded
from rlprm.stages.settings import CollectConfig
from rlprm.types import Split, Trajectory
from tests.toys.manifests import manifest
from tests.toys.trajectories import of_words

OLD = {"environment": "math", "env_kwargs": {"source": "arithmetic"}}
MEANT = {"environment": "math", "env_kwargs": {"source": "arithmetic", "answers": "strict"}}


def config(**changes: Any) -> CollectConfig:
    given = {"environment": "math", "model": "policy", "output_dir": "rollouts"}
    return CollectConfig(**{**given, **changes})


def test_the_table_holds_the_environments_own_defaults() -> None:
    for environment, defaults in CHANGED_DEFAULTS.items():
        parameters = inspect.signature(envs.load(environment).tasks).parameters
        assert {name: parameters[name].default for name in defaults} == {
            name: new for name, (_, new) in defaults.items()
        }


def test_old_settings_are_read_as_they_were_meant() -> None:
    assert with_old_defaults(OLD) == MEANT
    assert with_old_defaults(MEANT) == MEANT
    nested = {"model": "m", "label_file_meta": {"data": OLD}, "data": OLD}
    assert with_old_defaults(nested) == {"model": "m", "label_file_meta": {"data": MEANT}, "data": MEANT}
    for stage in ("collect", "train-prm", "train-rl", "evaluate", "label"):
        assert current_settings(stage, OLD)["env_kwargs"] == MEANT["env_kwargs"]


@pytest.mark.parametrize(
    "settings",
    [
        {"environment": "math", "env_kwargs": {"answers": "flexible"}},
        {"environment": "babyai", "env_kwargs": {"levels": ["GoToObj"]}},
        {"environment": "mine.math", "env_kwargs": {}},
        {"environment": "math"},
        {"env_kwargs": {}},
        {"environment": "mine", "env_kwargs": {"inner": OLD}},
        {"environment": ["math"], "env_kwargs": {}},
        {},
    ],
)
def test_settings_that_say_it_or_have_no_such_default_stay(settings: dict[str, Any]) -> None:
    assert with_old_defaults(settings) == settings


@pytest.mark.parametrize("name", ["math", "rlprm.envs.math"])
def test_a_run_states_the_setting(name: str) -> None:
    assert with_new_defaults(name, {}) == config(environment=name).env_kwargs == {"answers": "flexible"}
    given = {"answers": "strict", "source": "arithmetic"}
    assert config(environment=name, env_kwargs=given).env_kwargs == given
    assert config(environment="textcraft", env_kwargs={"depths": [1]}).env_kwargs == {"depths": [1]}


def test_a_finished_run_is_reused_by_runs_that_mean_the_same_and_by_no_others(tmp_path: Path) -> None:
    with recorded(tmp_path, "collect", OLD):
        pass
    strict = config(env_kwargs={"source": "arithmetic", "answers": "strict"})
    silent = config(env_kwargs={"source": "arithmetic"})
    assert is_finished(tmp_path, "collect", {"environment": "math", "env_kwargs": strict.env_kwargs})
    with pytest.raises(MismatchError, match=r"'answers': 'strict'} there, .*'answers': 'flexible'} now"):
        is_finished(tmp_path, "collect", {"environment": "math", "env_kwargs": silent.env_kwargs})


def test_a_folder_of_rows_is_read_and_continued_as_it_was_meant(tmp_path: Path) -> None:
    TrajectoryStore.create(tmp_path, MEANT).write(0, [of_words(["#### 1"], success=True)])
    meta = tmp_path / "meta.json"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), **OLD}))
    assert TrajectoryStore.open(tmp_path).meta["env_kwargs"] == MEANT["env_kwargs"]
    assert TrajectoryStore.create(tmp_path, MEANT).has(0)
    with pytest.raises(MismatchError, match="env_kwargs"):
        TrajectoryStore.create(tmp_path, {"environment": "math", "env_kwargs": {"answers": "flexible"}})


def test_a_model_and_a_prm_say_what_they_were_trained_with(tmp_path: Path) -> None:
    with recorded(tmp_path, "train-prm", {"data": OLD}):
        pass
    found = settings_of_model(str(tmp_path))
    assert found == MEANT
    assert [str(d) for d in differences(found, episode_settings(config(env_kwargs=OLD["env_kwargs"])))] == [
        "env_kwargs.answers 'strict' there, 'flexible' here"
    ]
    (tmp_path / FILE).write_text(json.dumps(asdict(replace(manifest("t"), **OLD))))
    assert Manifest.load(tmp_path).env_kwargs == MEANT["env_kwargs"]


@pytest.mark.parametrize("answers", ["strict", "flexible"])
@pytest.mark.parametrize("is_named", [True, False])
def test_trajectories_in_memory_are_stored_with_the_rule_of_their_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: str, is_named: bool
) -> None:
    monkeypatch.setattr(learning.prm_stage, "run", lambda _: None)
    monkeypatch.setattr(learning, "load_prm", lambda _: None)
    tasks = math.tasks(Split.TRAIN, 0, 2, answers=answers)
    made: list[Trajectory] = [replace(of_words(["#### 1"], success=True), task=task) for task in tasks]
    environment = "math" if is_named else None
    for _ in range(2):  # the second finds the first one's folder
        rlprm.train_prm(made, model="m", output_dir=tmp_path, environment=environment)
    assert TrajectoryStore.open(tmp_path / "trajectories").meta["env_kwargs"] == {"answers": answers}
