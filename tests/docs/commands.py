"""What a line of a shell block would start, checked without starting anything."""

from __future__ import annotations

import importlib
import itertools
import re
import shlex
from pathlib import Path

from rlprm.cli import settings_of
from rlprm.models.hub.packaged import PACKAGED
from rlprm.report.command import COMMANDS as REPORT_COMMANDS
from rlprm.report.command import parser_of
from rlprm.runtime.accelerate import launch_of
from rlprm.runtime.parsing.library import library_settings
from rlprm.runtime.recipes import STAGE_SETTINGS, settings_type
from rlprm.runtime.settings import declarations

ROOT = Path(__file__).parents[2]
_SCRIPTS = {path.stem: path.stem.replace("_", "-") for path in (ROOT / "scripts").glob("*.py")}
_SHELL = {"cd", "curl", "git", "export", "source", "mkdir"}


def commands(text: str, variables: dict[str, str]) -> list[list[str]]:
    """The commands of a shell block, without comments and line breaks.

    Args:
        text: of the block.
        variables: set by earlier blocks of the page; those that the block sets are added.
    """
    found = []
    for line in re.sub(r"\\\n", " ", text).splitlines():
        for part in re.split(r" && ", line):
            words = shlex.split(
                re.sub(r"\$\{?(\w+)\}?", lambda m: variables.get(m.group(1), m.group(0)), part), comments=True
            )
            while words and (given := re.fullmatch(r"(\w+)=(.*)", words[0])):
                variables[given.group(1)] = given.group(2)
                words = words[1:]
            if words:
                found.append(words)
    return found


def check(words: list[str]) -> None:
    """Refuse a command that could not start: unknown settings, impossible values, files that are missing.

    Raises:
        Exception: whatever the command itself would report.
    """
    program, *rest = words
    name = Path(program).name
    if program == "rlprm":
        _check_rlprm(rest)
    elif name == "accelerate" and rest[0] == "launch":
        _check_launch(rest[1:])
    elif name == "torchrun":
        _check_script(_from_script(rest))
    elif name.startswith("python"):
        _check_python(rest)
    elif name == "bash":
        assert (ROOT / rest[0]).is_file(), rest[0]
    elif name == "pip":
        assert rest[0] == "install", rest
        assert not any(re.match(r"rlprm\b", word) for word in rest), "rlprm has not been published"
    elif name == "ruff":
        assert rest[0] in ("check", "format"), rest
    else:
        assert program in _SHELL, f"{program}: a program that the tests do not know"


def _check_rlprm(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("--help", "--version", "recipes"):
        return
    stage, *rest = arguments
    if stage == "models":
        assert rest == [] or (rest[0] == "get" and rest[1] in PACKAGED and len(rest) <= 3), rest
        return
    if "--help" in rest or "--help-all" in rest:
        return
    if stage in REPORT_COMMANDS:
        parser_of(stage).parse_args(rest)
        return
    launch = launch_of(stage, rest)
    settings_of(stage, rest if launch is None else launch.settings)


def _check_launch(arguments: list[str]) -> None:
    from accelerate.commands.launch import launch_command_parser

    parsed = launch_command_parser().parse_args(arguments)
    if parsed.config_file is not None:
        assert (ROOT / parsed.config_file).is_file(), parsed.config_file
    _check_script([parsed.training_script, *parsed.training_script_args])


def _check_script(arguments: list[str]) -> None:
    script, *rest = arguments
    assert (ROOT / script).is_file(), script
    assert Path(script).parent.name == "scripts", script
    settings_of(_SCRIPTS[Path(script).stem], rest)


def _from_script(words: list[str]) -> list[str]:
    return words[next(i for i, word in enumerate(words) if word.endswith(".py")) :]


def _check_python(arguments: list[str]) -> None:
    if arguments[0] == "-m":
        module, rest = arguments[1], arguments[2:]
        if module == "pytest":
            paths = [word for word in rest if word.startswith("tests")]
            assert paths
            assert all((ROOT / path).exists() for path in paths), paths
            return
        if module == "venv":
            return
        file = ROOT / (module.replace(".", "/") + ".py")
    else:
        file, rest = ROOT / arguments[0], arguments[1:]
        if file.parent == ROOT / "scripts" and _SCRIPTS.get(file.stem) in STAGE_SETTINGS:
            _check_script(arguments)
            return
    assert file.is_file(), file
    source = file.read_text(encoding="utf-8")
    if "--variants" in rest and file.parent.parent == ROOT / "studies":
        names = itertools.takewhile(
            lambda word: not word.startswith("--"), rest[rest.index("--variants") + 1 :]
        )
        known = importlib.import_module(f"studies.{file.parent.name}.run").VARIANTS
        assert set(names) <= set(known), sorted(known)
    for word in rest:
        if word.startswith("--"):
            assert f'"{word.split("=")[0]}"' in source, f"{file.name} has no option {word}"


def settings_named(stage: str) -> set[str]:
    """The names of a stage's settings, its library's included."""
    config = settings_type(stage)
    return set(declarations(config)) | set(library_settings(getattr(config, "LIBRARY", "")))
