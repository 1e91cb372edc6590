"""Stages with code of the user's own: files are components, edits are noticed, stored names load nothing."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from pathlib import Path

import pytest

from rlprm import cli, scorers
from tests.toys import corridor
from tests.toys.pipeline import Pipeline, refused

SCORER = '''
"""A scorer that prefers few actions."""

from rlprm.types import StepScores


class Few:
    def __init__(self, name, worth):
        self.name, self.worth = name, worth

    def score(self, trajectories):
        return [StepScores(0.0, tuple(-self.worth * t for t in range(len(x.steps)))) for x in trajectories]


def build(name, *, worth=1.0):
    return Few(name, worth)
'''
OWN = ("world.py", "world_helper.py", "few.py", "my_labels.py", "pay.py")
ACTING = [
    "--environment", "world.py", "--env_kwargs.length", "4", "--round_limit", "6", "--temperature", "2.0",
    "--max_new_tokens", "8",
]  # fmt: skip


def write_code(folder: Path) -> None:
    (folder / "world.py").write_text(Path(str(corridor.__file__)).read_text() + "\nimport world_helper\n")
    (folder / "world_helper.py").write_text("GREETING = 'hello'\n")
    (folder / "few.py").write_text(SCORER)
    (folder / "my_labels.py").write_text("from rlprm.labels.returns import NEEDS_VALUES, label\n")
    names = ("NEEDS_VALUES", "CAN_BOOTSTRAP", "TOTAL_OF", "step_rewards", "critic_factor")
    (folder / "pay.py").write_text(f"from rlprm.rl.rewards.outcome import {', '.join(names)}\n")


def stages(pipeline: Pipeline) -> dict[str, list[str]]:
    """The command line of each stage that uses the code, its output folder aside; small and in order."""
    model = ["--model", pipeline.policy]
    stored = [*ACTING, *model, "--trajectories", "collect"]
    return {
        "sft": [
            "--environment", "world.py", "--env_kwargs.length", "4", "--size", "xs", "--vocab_size", "300",
            "--context_length", "256", "--num_demonstrations", "40", "--workers", "2", "--max_steps", "1",
            "--disable_tqdm", "true", "--bf16", "false",
        ],
        "collect": [*ACTING, *model, "--num_tasks", "6", "--samples_per_task", "4"],
        "estimate": [*stored, "--num_tasks", "2", "--samples_per_task", "1", "--rollouts", "2"],
        "probe-actions": [
            *stored, "--num_states", "2", "--samples_per_state", "4", "--actions_per_state", "2",
            "--rollouts", "4",
        ],
        "train-prm": [
            *model, "--trajectories", "collect", "--label_estimator", "./my_labels.py", "--num_train_epochs",
            "2", "--held_out_fraction", "0.25", "--disable_tqdm", "true", "--bf16", "false",
        ],
        "evaluate": [
            *ACTING, *model, "--scorers.mine", "few.py", "--scorers.twice.kind", "./few.py",
            "--scorers.twice.worth", "2.0", "--scorers.drawn.kind", "random", "--scorers.drawn.seed", "3",
            "--num_tasks", "2", "--num_dev_tasks", "2", "--budgets", "1", "2", "--chosen_at", "2",
            "--beams", "2x1", "--action_probe", "probe-actions",
        ],
        "train-rl": [
            *ACTING, *model, "--prm", "", "--reward", "pay.py", "--advantage", "leave_one_out",
            "--iterations", "1", "--tasks_per_iteration", "2", "--samples_per_task", "2", "--test_tasks", "0",
            "--eval_every", "0", "--minibatches", "1", "--save_every", "1", "--bf16", "false",
        ],
    }  # fmt: skip


def command(pipeline: Pipeline, stage: str) -> list[str]:
    return [stage, *stages(pipeline)[stage], "--output_dir", stage]


@pytest.fixture(scope="module")
def ran(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every stage has run once."""
    folder = tmp_path_factory.mktemp("users")
    write_code(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [*sys.path])
        for stage in stages(pipeline):
            assert cli.main(command(pipeline, stage)) == 0, stage
    return folder


@pytest.fixture
def here(ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder that a test may change. The modules keep coming from where they were loaded."""
    shutil.copytree(ran, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "world_helper", raising=False)
    return tmp_path / "copy"


def edit(file: Path) -> None:
    file.write_text(file.read_text() + "# a comment is an edit, too\n")
    restart()


def restart() -> None:
    """Import no module from memory that a new process would read from disk."""
    for name, module in list(sys.modules.items()):
        if name.startswith("rlprm_file:") or Path(getattr(module, "__file__", None) or "-").name in OWN:
            del sys.modules[name]


STAGES = ("sft", "collect", "estimate", "probe-actions", "evaluate", "train-rl")


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_reused_until_the_code_is_edited(
    here: Path, pipeline: Pipeline, stage: str, caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO)
    assert cli.main(command(pipeline, stage)) == 0
    assert "reusing" in caplog.text
    edit(here / "world_helper.py")
    line = refused(capfd, *command(pipeline, stage))
    assert (
        f"{stage} holds a finished run with other code (world_helper.py of the environment has changed)"
        in line
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "file", "what"),
    [
        (
            "evaluate",
            "few.py",
            "few.py of the scorer mine has changed, few.py of the scorer twice has",
        ),
        ("train-rl", "pay.py", "pay.py of the reward has changed"),
        ("train-prm", "my_labels.py", "my_labels.py of the label_estimator has changed"),
    ],
)
def test_an_edit_of_another_component_is_noticed(
    here: Path, pipeline: Pipeline, stage: str, file: str, what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    edit(here / file)
    assert f"with other code ({what}" in refused(capfd, *command(pipeline, stage))


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["collect", "estimate", "evaluate", "train-rl"])
def test_a_run_that_was_killed_does_not_go_on_with_edited_code(
    here: Path, pipeline: Pipeline, stage: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (here / stage / "stage.json").unlink()
    edit(here / "world.py")
    assert "with other code (world.py of the environment has changed)" in refused(
        capfd, *command(pipeline, stage)
    )


@pytest.mark.slow
def test_trajectories_of_the_old_code_are_not_replayed_by_the_new(
    here: Path, pipeline: Pipeline, capfd: pytest.CaptureFixture[str]
) -> None:
    edit(here / "world.py")
    for stage in ("estimate", "probe-actions"):
        line = refused(capfd, stage, *stages(pipeline)[stage], "--output_dir", "new")
        assert "collect was made with other code (world.py of the environment has changed)" in line


@pytest.mark.slow
def test_a_record_of_0_1_0_is_accepted_with_a_warning(
    here: Path, pipeline: Pipeline, caplog: pytest.LogCaptureFixture
) -> None:
    record = json.loads((here / "collect" / "stage.json").read_text())
    assert set(record["config"].pop("sources")["environment"]) == {"world.py", "world_helper.py"}
    (here / "collect" / "stage.json").write_text(json.dumps(record))
    assert cli.main(command(pipeline, "collect")) == 0
    assert "by a version that kept no hash of your code: environment could not be compared" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("evil", ["./evil.py", "evil_module", "evil_package.world"])
def test_a_hostile_shard_loads_no_code(
    here: Path, pipeline: Pipeline, evil: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (here / "evil_package").mkdir()
    for name in ("evil.py", "evil_module.py", "evil_package/__init__.py", "evil_package/world.py"):
        (here / name).write_text("import pathlib\npathlib.Path('mark').touch()\n")
    for folder in ("collect", "evaluate/pool"):
        shard = next((here / folder).glob("wave-*.jsonl"))
        rows = [json.loads(line) for line in shard.read_text().splitlines()]
        rows[-1]["environment"] = evil
        shard.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for stage in ("collect", "evaluate"):
        (here / stage / "stage.json").unlink()
        capfd.readouterr()
        assert cli.main(command(pipeline, stage)) == 2
        line = capfd.readouterr().err.splitlines()[-1]  # after the progress bars of an evaluation
        assert line.startswith("rlprm: MismatchError: ")
        assert f"environment {evil!r}" in line
        assert "the run's is 'world.py'" in line
    for stage in ("estimate", "probe-actions"):
        assert f"{evil!r}" in refused(capfd, stage, *stages(pipeline)[stage], "--output_dir", "new")
    meta = json.loads((here / "collect" / "meta.json").read_text())
    (here / "collect" / "meta.json").write_text(json.dumps({**meta, "environment": evil}))
    for stage in ("estimate", "probe-actions"):
        line = refused(capfd, stage, *stages(pipeline)[stage], "--output_dir", "new")
        assert f"environment: {evil!r} there, 'world.py' now" in line
    assert not (here / "mark").exists()


@pytest.mark.slow
def test_settings_of_scorers_are_checked_before_anything_is_loaded(
    here: Path, pipeline: Pipeline, capfd: pytest.CaptureFixture[str]
) -> None:
    common = ["evaluate", *ACTING, "--model", pipeline.policy]
    line = refused(capfd, *common, "--scorers.mine.kind", "few.py", "--scorers.mine.wroth", "2")
    assert "the scorer few.py has no setting 'wroth'; allowed: worth" in line
    line = refused(capfd, *common, "--scorers.mine.worth", "2")
    assert "scorers.mine: got {'worth': 2}, allowed: the folder of a PRM or ORM, the path of a" in line
    line = refused(capfd, *common, "--scorers.mine.kind", "fwe")
    assert f"unknown scorer 'fwe'; known: {', '.join(scorers.available())} (" in line


@pytest.mark.slow
def test_a_users_scorer_is_measured_like_a_checkpoint(here: Path) -> None:
    summary = json.loads((here / "evaluate" / "summary.json").read_text())
    names = json.dumps(summary)
    for scorer in ("mine", "twice", "drawn", "mine_x_policy"):
        assert f'"{scorer}"' in names
    meta = [
        json.loads(path.read_text()) for path in sorted((here / "evaluate" / "beams").glob("*/meta.json"))
    ]
    assert len({row["scorer"] for row in meta}) == 3


@pytest.mark.slow
def test_labels_say_which_code_made_them(here: Path) -> None:
    arguments = [
        "--trajectories",
        "collect",
        "--label_estimator",
        "./my_labels.py",
        "--output",
        "labels.jsonl",
    ]
    assert cli.main(["label", *arguments]) == 0
    meta = json.loads((here / "labels.meta.json").read_text())
    manifest = json.loads((here / "train-prm" / "prm_manifest.json").read_text())
    assert meta["label_estimator"] == manifest["label_estimator"] == "my_labels.py"
    assert list(meta["sources"]["label_estimator"]) == ["my_labels.py"]


@pytest.mark.slow
def test_sft_needs_an_expert_and_no_fixed_phrases(
    here: Path, pipeline: Pipeline, capfd: pytest.CaptureFixture[str]
) -> None:
    text = (here / "world.py").read_text()
    (here / "no_expert.py").write_text(text.replace("def demonstrate", "def _demonstrate"))
    (here / "no_phrases.py").write_text(text.replace("FIXED_PHRASES", "NO_PHRASES").replace(
        "import ACTIONS, NO_PHRASES", "import ACTIONS"))  # fmt: skip
    arguments = command(pipeline, "sft")
    arguments[arguments.index("world.py")] = "no_expert.py"
    arguments[-1] = "new"
    assert "no_expert.py does not define demonstrate, the expert" in refused(capfd, *arguments)
    arguments[arguments.index("no_expert.py")] = "no_phrases.py"
    assert cli.main(arguments) == 0
