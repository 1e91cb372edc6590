"""Code is loaded if a setting names it: what a file names (a trajectory, a manifest) is never imported."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rlprm import envs
from rlprm.data.demonstrations import demonstrate, demonstrate_all
from rlprm.data.store import TrajectoryStore
from rlprm.errors import ConfigError, MismatchError
from rlprm.rollouts.monte_carlo import replay
from rlprm.types import End, EpisodeSetting, Split, Task
from tests.toys import corridor
from tests.toys.agents import ScriptedPolicy
from tests.toys.trajectories import of_steps

EVIL = ["./evil.py", "evil.py", "evil_module", "evil_package.world", "rlprm_file:{here}.evil"]


@pytest.fixture(params=EVIL)
def evil(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A name that a file could hold, of code that leaves a mark when it is imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    (tmp_path / "evil_package").mkdir()
    for name in ("evil.py", "evil_module.py", "evil_package/__init__.py", "evil_package/world.py"):
        (tmp_path / name).write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'mark')!r}).touch()\n")
    return str(request.param).format(here=str(tmp_path).replace(".", "%2E"))


def test_a_task_loads_no_code_that_no_setting_names(evil: str, tmp_path: Path) -> None:
    task = Task(evil, "task-1", Split.TRAIN)
    with pytest.raises(MismatchError, match=r"task 'task-1' names .* not loaded") as caught:
        envs.of_task(task)
    assert "\n" not in str(caught.value)
    for workers in (1, 2):
        with pytest.raises(MismatchError, match="not loaded"):
            list(
                demonstrate_all(
                    [task], end=End.DECLARED, prompt="none", action_format="action_only", workers=workers
                )
            )
    assert not (tmp_path / "mark").exists()


def test_a_stored_trajectory_is_not_replayed_with_the_code_that_it_names(evil: str, tmp_path: Path) -> None:
    stored = of_steps()
    stored = replace(stored, task=replace(stored.task, environment=evil))
    policy = ScriptedPolicy(["right"])
    stored = replace(stored, template=policy.renderer.template_hash)
    with pytest.raises(MismatchError, match="names the environment"):
        replay(stored, EpisodeSetting(), policy)
    store = TrajectoryStore.create(tmp_path / "store", {})
    store.write(0, [stored])
    with pytest.raises(MismatchError, match=r"holds a trajectory of the environment .* the run's is"):
        store.read_of("tests.toys.corridor")
    assert not (tmp_path / "mark").exists()


def test_a_module_that_is_imported_already_must_be_an_environment() -> None:
    with pytest.raises(
        ConfigError, match=r"json, which task 't' names .* does not define ROUND_LIMIT, tasks"
    ):
        envs.of_task(Task("json", "t", Split.TRAIN))
    assert envs.of_task(corridor.tasks(Split.TRAIN, 0, 1)[0]) is corridor  # type: ignore[comparison-overlap]


def test_a_protocol_of_agentgym_belongs_to_agentgym_and_other_environments_do_not() -> None:
    assert envs.belongs_to(Task("rlprm.envs.agentgym.babyai", "t", Split.TRAIN), "agentgym")
    assert envs.belongs_to(Task("babyai", "t", Split.TRAIN), "babyai")
    assert not envs.belongs_to(Task("rlprm.envs.agentgym.babyai", "t", Split.TRAIN), "babyai")
    assert not envs.belongs_to(Task("textcraft", "t", Split.TRAIN), "babyai")


def test_tasks_of_a_file_store_the_files_name_and_are_played_by_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "world.py").write_text(Path(str(corridor.__file__)).read_text())
    task, second = envs.tasks("./world.py", Split.TRAIN, 0, 2, {"length": 4})
    assert task.environment == "world.py"
    assert envs.of_task(task) is envs.load(str(tmp_path / "world.py"))
    settings = {"end": End.DECLARED, "prompt": "none", "action_format": "action_only"}
    expected = [
        demonstrate(replace(one, environment="tests.toys.corridor"), **settings)  # type: ignore[arg-type]
        for one in (task, second)
    ]
    solved = demonstrate_all([task, second], workers=2, **settings)  # type: ignore[arg-type]
    assert [d and d.messages for d in solved] == [d and d.messages for d in expected]


def test_settings_that_an_environment_does_not_take_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = Path(str(corridor.__file__)).read_text()
    (tmp_path / "world.py").write_text(
        text.replace(", **unknown: Any", "").replace("if unknown:", "if False:")
    )
    with pytest.raises(ConfigError, match=r"world\.py has no setting 'lenght'; allowed: length, budget"):
        envs.tasks("world.py", Split.TRAIN, 0, 1, {"lenght": 3})
    (tmp_path / "strict.py").write_text(text.replace("length: int = 4", "length: int"))
    with pytest.raises(ConfigError, match=r"cannot take its settings \(missing a required .*'length'\)"):
        envs.tasks("strict.py", Split.TRAIN, 0, 1)
    (tmp_path / "borrower.py").write_text(text.replace("environment=__name__", 'environment="babyai"'))
    with pytest.raises(ConfigError, match=r"borrower\.py makes tasks of 'babyai', allowed: tasks of its own"):
        envs.tasks("borrower.py", Split.TRAIN, 0, 1)
