"""The package as it is installed: a wheel made of the sdist, and an editable install, each on its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.recipes import RECIPES, ROOT
from tests.packaging.installs import Installation, build, copy_sources, unpack

pytestmark = pytest.mark.slow
WHERE = (
    "import rlprm; from rlprm.runtime.resources import *; print(rlprm.__file__); print(*map(resource_folder, "
)
WHERE += "(RECIPES, LAUNCH_FILES)), sep='\\n')"
SMALL = [
    "--pretrain.size", "xs", "--pretrain.num_demonstrations", "150", "--pretrain.num_train_epochs", "1",
    "--sft.num_demonstrations", "200", "--sft.num_train_epochs", "2", "--collect.num_tasks", "16",
    "--train_prm.num_train_epochs", "1", "--train_prm.cold_start_epochs", "0",
    "--train_orm.num_train_epochs", "1", "--clone.num_train_epochs", "1",
    "--evaluate.num_tasks", "4", "--evaluate.num_dev_tasks", "4",
    "--evaluate.budgets", "[1, 2]", "--evaluate.chosen_at", "2", "--evaluate.beams", "[2x2]",
    "--train_rl.iterations", "1", "--train_rl.tasks_per_iteration", "4", "--train_rl.test_tasks", "4",
    "--train_rl.repeat_probe", "2",
    *(
        word
        for stage in ("pretrain", "sft", "collect", "clone", "evaluate", "train_rl")
        for name, value in (("levels", "[GoToLocalS8N7]"), ("detours", "0"))
        for word in (f"--{stage}.env_kwargs.{name}", value)
    ),
]  # fmt: skip
"""A policy of this size succeeds at times on an easy level, so that there are successes to clone."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """Sdist → wheel → an environment; the sources are gone by then."""
    folder = tmp_path_factory.mktemp("wheel")
    sdist = build("build_sdist", copy_sources(folder / "sources"), folder / "sdist")
    made = build("build_wheel", unpack(sdist, folder / "unpacked"), folder / "dist")
    return Installation.of(made, folder / "environment")


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


def test_a_wheel_holds_every_recipe_and_launch_file(wheel: Installation, empty: Path) -> None:
    package, recipes, launch_files = wheel.run("python", "-c", WHERE, cwd=empty).stdout.splitlines()
    inside = Path(package).parent
    assert wheel.folder in inside.parents
    assert (Path(recipes), Path(launch_files)) == (
        inside / "_resources/recipes",
        inside / "_resources/ds_configs",
    )
    for name, folder in (("recipes", recipes), ("ds_configs", launch_files)):
        expected = {path.relative_to(ROOT / name): path for path in (ROOT / name).rglob("*.*")}
        assert {path.relative_to(folder) for path in Path(folder).rglob("*.*")} == set(expected)
        assert all(
            (Path(folder) / path).read_bytes() == source.read_bytes() for path, source in expected.items()
        )


def test_an_editable_install_reads_the_folders_of_its_checkout(tmp_path: Path, empty: Path) -> None:
    sources = copy_sources(tmp_path / "sources")
    editable = Installation.of(build("build_editable", sources, tmp_path / "dist"), tmp_path / "environment")
    found = editable.run("python", "-c", WHERE, cwd=empty).stdout.splitlines()
    expected = [sources / "rlprm/__init__.py", sources / "recipes", sources / "ds_configs"]
    assert [Path(line).resolve() for line in found] == [path.resolve() for path in expected]
    assert not (sources / "rlprm/_resources").exists()


def test_the_command_line_of_a_wheel_lists_recipes_and_helps(wheel: Installation, empty: Path) -> None:
    listed = wheel.run("rlprm", "recipes", cwd=empty)
    assert (listed.returncode, listed.stderr) == (0, "")
    names = [line for line in listed.stdout.splitlines() if not line.startswith(" ")]
    assert [f"recipes/{name}" for name in names] == sorted(RECIPES)
    assert "--collect" in wheel.run("rlprm", "quickstart", "--help", cwd=empty).stdout
    mistake = wheel.run(
        "rlprm", "collect", "--config", "babyai/collect_tiny.yaml", "--num_task", "3", cwd=empty
    )
    assert mistake.stderr.strip().startswith("rlprm: ConfigError: unknown setting 'num_task'")
    assert list(empty.iterdir()) == []


def test_the_quickstart_of_a_wheel_runs_in_an_empty_folder(wheel: Installation, empty: Path) -> None:
    done = wheel.run("rlprm", "quickstart", *SMALL, cwd=empty)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in empty.iterdir()] == ["runs"]
    summary = json.loads((empty / "runs/quickstart/summary.json").read_text())
    assert {"agentprm", "orm"} <= {row["scorer"] for row in summary["evaluation"]}
    assert summary["rl"]["iterations"] == 1
