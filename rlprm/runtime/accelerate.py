"""The short form of a launch: ``rlprm train-prm --accelerate_config zero3 ...``.

The command line replaces itself by ``accelerate launch`` with that file of ``ds_configs/``, whose
processes run the same stage. A file is looked up as a path, then in ``ds_configs/`` of the current folder,
then among the shipped ones. Several machines, or another launcher, take ``scripts/`` instead.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import yaml

from rlprm.errors import ConfigError
from rlprm.runtime.resources import LAUNCH_FILES, find_file, resource_folder

STAGES = ("sft", "train-prm", "train-rl")
"""Stages that train; the others share their work out without DeepSpeed."""
FSDP_REFUSED = (
    "accelerate_config: got distributed_type FSDP, allowed for train-rl: MULTI_GPU, MULTI_CPU, NO, DEEPSPEED "
    "(zero2 and zero3 split the optimiser's state and the weights as FSDP does)"
)
"""Agent RL acts with the weights between updates and clips policy and critic apart."""
_CONFIG, _PROCESSES, _DETAILS = "--accelerate_config", "--num_processes", "--deepspeed_config_file"


class Launch(NamedTuple):
    """Processes to be started."""

    command: list[str]
    settings: list[str]
    """Arguments of the stage itself."""


def launch_of(stage: str, arguments: Sequence[str]) -> Launch | None:
    """Return how a stage is to be launched; None without ``--accelerate_config``.

    Args:
        stage: of the command line.
        arguments: after the stage's name. ``--accelerate_config`` requests a launch; with it,
            ``--num_processes`` replaces the number in the file.

    Raises:
        ConfigError: for a file that does not exist or cannot be launched, a stage that does not train, or
            a launch inside a launch.
    """
    name, rest = _take(_CONFIG, arguments)
    if name is None:
        return None
    if stage not in STAGES:
        raise ConfigError(f"accelerate_config: got stage {stage}, allowed: {', '.join(STAGES)}")
    if "LOCAL_RANK" in os.environ:
        raise ConfigError(
            f"accelerate_config: got {name!r} in a process that was launched already, allowed: none"
        )
    processes, rest = _take(_PROCESSES, rest)
    if processes is not None and not (processes.isdigit() and int(processes)):
        raise ConfigError(f"num_processes: got {processes!r}, allowed: 1 or more")
    file = _file(name)
    content = _read(file)
    if stage == "train-rl" and content["distributed_type"] == "FSDP":
        raise ConfigError(FSDP_REFUSED)
    details = _details(file, content)
    options = [] if processes is None else [_PROCESSES, processes]
    options += [] if details is None else [_DETAILS, str(details)]
    # -P: the launcher does not import from the current folder, whose torch.py may be the user's.
    python = [sys.executable, "-P", "-m"]
    launcher = [*python, "accelerate.commands.launch", "--config_file", str(file), *options]
    return Launch([*launcher, "--module", "rlprm.cli", stage, *rest], rest)


def replace_process(launch: Launch) -> NoReturn:
    """Become the launch: signals reach it, and its exit status is this one's."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(launch.command[0], launch.command)


def _take(name: str, arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """Take an option and its value out of the arguments; the last one counts."""
    found: str | None = None
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        key, has_value, value = word.partition("=")
        if key != name:
            rest.append(word)
            continue
        found = value if has_value else next(words, "")
        if not found or found.startswith("--"):
            raise ConfigError(f"{name} needs a value")
    return found, rest


def _file(name: str) -> Path:
    """Return the launch file of a name or of a path."""
    if name.endswith((".yaml", ".yml")):
        if (path := find_file(name, LAUNCH_FILES)) is None:
            raise ConfigError(f"accelerate_config: no file {name!r}")
        return path
    if (path := find_file(f"{LAUNCH_FILES}/{name}.yaml", LAUNCH_FILES)) is None:
        known = ", ".join(sorted(path.stem for path in resource_folder(LAUNCH_FILES).glob("*.yaml")))
        raise ConfigError(f"accelerate_config: got {name!r}, allowed: {known}, or a path that ends in .yaml")
    return path


def _read(file: Path) -> Mapping[str, Any]:
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(found, dict) or "distributed_type" not in found:
        raise ConfigError(f"{file} is not a configuration of accelerate: no distributed_type in it")
    return found


def _details(file: Path, content: Mapping[str, Any]) -> Path | None:
    """Return DeepSpeed's JSON file if the launch has to be given its path; refuse what cannot be launched.

    accelerate reads a relative path from the current folder. A file that lies elsewhere is looked for from
    the launch file's folder and from the folder above.
    """
    if content["distributed_type"] != "DEEPSPEED":
        return None
    if importlib.util.find_spec("deepspeed") is None:
        raise ConfigError(f"{file} needs DeepSpeed, which is not installed: pip install deepspeed ninja")
    named = (content.get("deepspeed_config") or {}).get("deepspeed_config_file")
    if named is None or Path(named).is_file():
        return None
    for folder in (file.parent, file.parent.parent):
        path = Path(folder, named)
        if path.is_file():
            return path.resolve()
    raise ConfigError(f"{file} names {named}, which is neither in the current folder nor beside it")
