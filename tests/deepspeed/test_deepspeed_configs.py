"""Every configuration of a launch parses, says what it is for, and starts what it says."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser

from rlprm.runtime.accelerate import STAGES, launch_of
from rlprm.runtime.config import parse
from rlprm.runtime.recipes import settings_type
from tests.cli.recipes import header
from tests.deepspeed.conftest import needs_deepspeed
from tests.deepspeed.launches import ROOT

CONFIGS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "ds_configs").glob("*.yaml"))
STAGE = {
    "zero1": 1,
    "zero2": 2,
    "zero3": 3,
    "zero3_offload": 3,
    "cpu_zero1": 1,
    "cpu_zero2": 2,
    "cpu_zero3": 3,
}


@pytest.fixture(autouse=True)
def at_the_top(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("LOCAL_RANK", raising=False)


def test_deepspeed_there_is_a_configuration_for_every_stage_of_zero() -> None:
    assert {Path(config).stem for config in CONFIGS} == set(STAGE)
    used = {json_of(config) for config in CONFIGS} - {None}
    assert used == {path.relative_to(ROOT) for path in (ROOT / "ds_configs").glob("*.json")}


def json_of(config: str) -> Path | None:
    named = load_config_from_file(config).deepspeed_config.get("deepspeed_config_file")
    return None if named is None else Path(named)


@pytest.mark.parametrize("config", CONFIGS)
def test_deepspeed_a_configuration_says_what_its_name_says(config: str) -> None:
    name, found = Path(config).stem, load_config_from_file(config)
    assert found.distributed_type == "DEEPSPEED"
    on_cpu = name.startswith("cpu_")
    assert (found.use_cpu, found.num_machines, found.machine_rank) == (on_cpu, 1, 0)
    details = found.deepspeed_config
    if (file := json_of(config)) is None:
        assert found.mixed_precision == ("no" if on_cpu else "bf16")
        assert details["zero_stage"] == STAGE[name]
        assert {details[f"offload_{part}_device"] for part in ("optimizer", "param")} == {
            "cpu" if "offload" in name else "none"
        }
        # Settings of a stage, which must not be overruled.
        assert details["gradient_accumulation_steps"] == details["gradient_clipping"] == "auto"
    else:
        content = json.loads(file.read_text())
        assert content["zero_optimization"]["stage"] == STAGE[name]
        assert content["zero_optimization"]["stage3_param_persistence_threshold"] == 0
        assert found.mixed_precision is None  # accelerate refuses to be told twice
        automatic = {"train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping"}
        assert {content[key] for key in automatic} == {"auto"}
    assert details["deepspeed_multinode_launcher"] == "standard"
    assert details.get("zero3_init_flag", False) == (STAGE[name] == 3)


@needs_deepspeed
@pytest.mark.parametrize("config", CONFIGS)
def test_deepspeed_the_lines_of_a_header_start_what_they_say(config: str) -> None:
    found = header(config)
    assert {"Purpose", "Hardware", "Launch", "Override"} <= found.keys()
    program, command, *rest = shlex.split(found["Launch"])
    assert (program, command) == ("accelerate", "launch")
    parsed = launch_command_parser().parse_args(rest)
    assert parsed.config_file == config
    stage = Path(parsed.training_script).stem.replace("_", "-")
    assert stage in STAGES
    assert (ROOT / parsed.training_script).is_file()
    settings(stage, parsed.training_script_args)

    program, stage, *rest = shlex.split(found["Override"])
    assert program == "rlprm"
    launch = launch_of(stage, rest)
    assert launch is not None
    parsed = launch_command_parser().parse_args(launch.command[4:])
    assert parsed.config_file == config
    assert parsed.num_processes != load_config_from_file(config).num_processes
    settings(stage, launch.settings)


def settings(stage: str, arguments: list[str]) -> None:
    """Parse them, as the stage would."""
    parse(settings_type(stage), arguments)


def test_deepspeed_the_lines_of_the_manual_launch_what_is_there() -> None:
    text = (ROOT / "docs/big_models.md").read_text()
    named = set(re.findall(r"--(?:accelerate_config|config_file) (\S+)", text))
    assert {"zero2", "zero3"} <= {Path(name).stem for name in named}
    for name in named:
        assert Path(name).stem in STAGE
