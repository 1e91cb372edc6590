"""The short form of a launch: which command it becomes, and what is refused before anything starts."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from rlprm import cli
from rlprm.errors import ConfigError
from rlprm.runtime import accelerate as accelerate_launch
from rlprm.runtime.accelerate import Launch, launch_of
from tests.deepspeed.launches import ROOT

RECIPE = "recipes/babyai/train_prm_tiny.yaml"


@pytest.fixture(autouse=True)
def at_the_top(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the repository, with DeepSpeed installed, in a process that nobody launched."""
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: object() if name == "deepspeed" else found(name)
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["--accelerate_config", "zero3", "--config", RECIPE, "--beta", "0"],
        ["--config", RECIPE, "--accelerate_config=zero3", "--beta", "0"],
        ["--config", RECIPE, "--beta", "0", "--accelerate_config", "ds_configs/zero3.yaml"],
    ],
)
def test_deepspeed_the_command_is_accelerate_with_the_same_stage(arguments: list[str]) -> None:
    launch = launch_of("train-prm", arguments)
    assert launch is not None
    assert launch.settings == ["--config", RECIPE, "--beta", "0"]
    assert launch.command == [
        sys.executable, "-P", "-m", "accelerate.commands.launch", "--config_file", "ds_configs/zero3.yaml",
        "--module", "rlprm.cli", "train-prm", "--config", RECIPE, "--beta", "0",
    ]  # fmt: skip


def test_deepspeed_the_number_of_processes_belongs_to_the_launch() -> None:
    launch = launch_of("sft", ["--num_processes", "4", "--seed", "1", "--accelerate_config", "zero2"])
    assert launch is not None
    assert launch.settings == ["--seed", "1"]
    assert launch.command[6:8] == ["--num_processes", "4"]
    assert launch_of("sft", ["--num_processes", "4", "--seed", "1"]) is None


@pytest.mark.parametrize(
    ("stage", "arguments", "message"),
    [
        (
            "train-prm",
            ["--accelerate_config", "zero4"],
            r"got 'zero4', allowed: cpu_zero1, .*zero3_offload, or",
        ),
        ("train-prm", ["--accelerate_config", "no/such.yaml"], "no file 'no/such.yaml'"),
        ("train-prm", ["--accelerate_config"], "--accelerate_config needs a value"),
        ("train-prm", ["--accelerate_config", "--beta", "1"], "--accelerate_config needs a value"),
        ("train-prm", ["--accelerate_config", RECIPE], "no distributed_type in it"),
        ("sft", ["--accelerate_config", "zero2", "--num_processes", "0"], "num_processes: got '0'"),
        ("sft", ["--accelerate_config", "zero2", "--num_processes", "two"], "num_processes: got 'two'"),
        (
            "evaluate",
            ["--accelerate_config", "zero2"],
            "got stage evaluate, allowed: sft, train-prm, train-rl",
        ),
    ],
)
def test_deepspeed_mistakes_are_one_line(stage: str, arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        launch_of(stage, arguments)
    assert "\n" not in str(caught.value)


def test_deepspeed_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    elsewhere = (ROOT / "ds_configs/cpu_zero3.yaml").read_text()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.yaml").write_text(elsewhere)
    with pytest.raises(ConfigError, match=r"own.yaml names ds_configs/cpu_zero3.json, which is neither"):
        launch_of("sft", ["--accelerate_config", "own.yaml"])
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="not installed: pip install deepspeed"):
        launch_of("sft", ["--accelerate_config", "zero2"])
    (tmp_path / "plain.yaml").write_text("distributed_type: MULTI_GPU\nnum_processes: 2\n")
    assert launch_of("sft", ["--accelerate_config", str(tmp_path / "plain.yaml")]) is not None


@pytest.mark.parametrize("name", ["cpu_zero3", "ds_configs/cpu_zero3.yaml", "cpu_zero3.yaml"])
def test_deepspeed_a_shipped_file_and_its_json_are_found_from_any_folder(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    launch = launch_of("sft", ["--accelerate_config", name])
    assert launch is not None
    shipped = {"--config_file": "cpu_zero3.yaml", "--deepspeed_config_file": "cpu_zero3.json"}
    for option, file in shipped.items():
        assert launch.command[launch.command.index(option) + 1] == str(ROOT / "ds_configs" / file)


def test_deepspeed_accelerate_takes_the_json_of_the_command_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    monkeypatch.chdir(tmp_path)
    launch = launch_of("sft", ["--accelerate_config", "cpu_zero3", "--seed", "1"])
    assert launch is not None
    options = launch.command[launch.command.index("--config_file") :]
    parsed, _, _ = _validate_launch_command(launch_command_parser().parse_args(options))
    assert parsed.deepspeed_config_file == str(ROOT / "ds_configs/cpu_zero3.json")
    assert parsed.use_deepspeed


def test_deepspeed_a_file_of_the_current_folder_comes_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ds_configs").mkdir()
    Path("ds_configs/zero2.yaml").write_text("distributed_type: MULTI_GPU\nnum_processes: 2\n")
    launch = launch_of("sft", ["--accelerate_config", "zero2"])
    assert launch is not None
    assert launch.command[launch.command.index("--config_file") + 1] == "ds_configs/zero2.yaml"


def test_deepspeed_no_launch_inside_a_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(ConfigError, match="got 'zero2' in a process that was launched already"):
        launch_of("sft", ["--accelerate_config", "zero2"])


def test_deepspeed_the_command_line_becomes_the_launch_once_its_settings_are_right(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Replaced(BaseException):
        """The process is another one now."""

    def replace(path: str, command: list[str]) -> None:
        assert path == command[0] == sys.executable
        assert command[-4:] == ["rlprm.cli", "train-prm", "--config", RECIPE]
        raise Replaced

    monkeypatch.setattr(accelerate_launch.os, "execv", replace)
    monkeypatch.setattr("rlprm.stages.train_prm.run", lambda config: pytest.fail("ran in this process"))
    short = ["train-prm", "--accelerate_config", "cpu_zero2", "--config", RECIPE]
    with pytest.raises(Replaced):
        cli.main(short)
    capfd.readouterr()
    assert cli.main([*short, "--betta", "1"]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line == "rlprm: ConfigError: unknown setting 'betta' in the command line; did you mean 'beta'?"


def test_deepspeed_the_processes_that_are_started_clear_the_folder_and_not_the_command_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Replaced(BaseException):
        """The process is another one now."""

    def replace(path: str, command: list[str]) -> None:
        assert "--overwrite" in command
        assert (tmp_path / "model.safetensors").exists()
        raise Replaced

    (tmp_path / "model.safetensors").write_text("made")
    monkeypatch.setattr(accelerate_launch.os, "execv", replace)
    with pytest.raises(Replaced):
        cli.main(["train-prm", "--accelerate_config", "cpu_zero2", "--config", RECIPE, "--overwrite",
                  "--output_dir", str(tmp_path)])  # fmt: skip


def test_deepspeed_the_launcher_of_accelerate_knows_these_options() -> None:
    from accelerate.commands.launch import launch_command_parser

    launch = launch_of("sft", ["--accelerate_config", "zero2", "--num_processes", "3", "--seed", "1"])
    assert isinstance(launch, Launch)
    parsed = launch_command_parser().parse_args(launch.command[launch.command.index("--config_file") :])
    assert (parsed.config_file, parsed.num_processes, parsed.module) == ("ds_configs/zero2.yaml", 3, True)
    assert (parsed.training_script, parsed.training_script_args) == ("rlprm.cli", ["sft", "--seed", "1"])
