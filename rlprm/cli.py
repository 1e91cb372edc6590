"""The command line: ``rlprm <stage> --config recipe.yaml --key value``.

A mistake of the user is one line on stderr and exit status 2; anything else is a
bug and keeps its traceback.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    # `python -m` puts the current folder in front, where its random.py would stand for the library's.
    sys.path.append(sys.path.pop(0))

import importlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from rlprm import __version__
from rlprm.errors import RlprmError, refuse_unknown
from rlprm.runtime.accelerate import STAGES, launch_of, replace_process
from rlprm.runtime.overwrite import FLAG, overwriting
from rlprm.runtime.recipe_list import recipes_command

_STAGES = {
    "sft": "expert demonstrations -> a policy",
    "collect": "a policy acts -> trajectories",
    "estimate": "trajectories -> Monte-Carlo labels (fresh rollouts)",
    "label": "trajectories -> step labels, to look at or train on",
    "train-prm": "trajectories -> a process reward model",
    "probe-actions": "states -> values of some actions",
    "train-rl": "a policy + a process reward model -> a better policy",
    "export": "trajectories -> AgentGym's format",
    "evaluate": "policy + scorers -> search, table, plots",
    "quickstart": "all of the above on a laptop, in minutes",
    "serve": "a policy -> vLLM servers, for the stages that act",
    "serve-prm": "a process reward model -> a server that scores trajectories",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one stage; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0
    if arguments[0] == "--version":
        print(__version__)
        return 0
    arguments[0] = arguments[0].replace("_", "-")
    if arguments[0] in _COMMANDS:
        return _print(_COMMANDS[arguments[0]], arguments[1:])
    if arguments[0] not in _STAGES:
        known = ", ".join((*_STAGES, *_COMMANDS))
        print(f"rlprm: unknown stage {arguments[0]!r}; known: {known}", file=sys.stderr)
        return 2
    _append_current_folder()
    # Libraries read these when they are imported.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for noisy in ("httpx", "httpcore", "matplotlib", "accelerate"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        launch = launch_of(arguments[0], arguments[1:])
        if launch is not None:
            settings_of(arguments[0], launch.settings)  # reports a mistake once, not in each process
            replace_process(launch)
        status = run_stage(arguments[0], arguments[1:])
    except RlprmError as error:
        print(f"rlprm: {type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_status
    except OSError as error:
        return _os_error(error)
    except KeyboardInterrupt:
        print("rlprm: interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    _leave_process_group()
    return status


def _print(command: Callable[[Sequence[str]], str], words: Sequence[str]) -> int:
    """Print what a command that is no stage returns; returns the exit status."""
    try:
        print(command(words))
    except RlprmError as error:
        print(f"rlprm: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        return _os_error(error)
    return 0


def _os_error(error: OSError) -> int:
    """Report what the system refused, and the file; returns the exit status."""
    if error.filename is None:  # a bug, or of a library's own making
        raise error
    print(f"rlprm: {type(error).__name__}: {error.filename}: {error.strerror}", file=sys.stderr)
    return 2


def _models_command(words: Sequence[str]) -> str:
    from rlprm.models.hub.packaged import models_command

    if words[:1] == ["get"]:
        _silence_libraries()
    return models_command(list(words))


def _report_command(name: str, words: Sequence[str]) -> str:
    module = importlib.import_module("rlprm.report.command")  # late: help of the stages needs none of it
    return str(getattr(module, f"{name}_command")(words))


_COMMANDS: Mapping[str, Callable[[Sequence[str]], str]] = {
    "recipes": recipes_command,
    "models": _models_command,
    **{name: partial(_report_command, name) for name in ("report", "view", "runs")},
}
"""Commands that are no stages: they have no recipe, and print what they return."""


def _append_current_folder() -> None:
    """Let settings name modules in the current folder; installed packages of the same name come first."""
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())


def run_stage(name: str, argv: Sequence[str]) -> int:
    """Parse a stage's configuration and run it; the name is one of the stages. Returns the exit status."""
    words, command = _split_command(name, argv)
    config = settings_of(name, words)
    # Imported late: help and mistakes need no torch.
    module = importlib.import_module(f"rlprm.stages.{name.replace('-', '_')}")
    _silence_libraries()
    with overwriting(FLAG in words):
        found = module.run(config, command) if command else module.run(config)
    return found if isinstance(found, int) else 0


def _split_command(name: str, argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return what stands before ``--``, and the command behind it that runs beside servers."""
    words = list(argv)
    if name != "serve" or "--" not in words:
        return words, []
    place = words.index("--")
    return words[:place], words[place + 1 :]


def settings_of(name: str, argv: Sequence[str]) -> Any:
    """Return the configuration of a stage."""
    from rlprm.runtime.config import parse
    from rlprm.runtime.recipes import settings_type

    words = [word for word in argv if word != FLAG]
    config = parse(settings_type(name), words, prog=f"rlprm {name}")
    if refresh := getattr(config, "refresh_kwargs", {}):
        _check_handed_on(refresh, "train-prm", where="refresh_kwargs")
    return config


def _check_handed_on(settings: Mapping[str, Any], name: str, *, where: str) -> None:
    """Refuse now what another stage would refuse after hours of this one."""
    from rlprm.runtime.parsing.library import accepted_names
    from rlprm.runtime.recipes import settings_type

    config_type = settings_type(name)
    refuse_unknown({key.partition(".")[0] for key in settings}, accepted_names(config_type), where)


def _leave_process_group() -> None:
    """Wait for the other processes of a launch: leaving ends them, and one may still be writing."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()


def _silence_libraries() -> None:
    """Keep the progress bars of long work; drop those of loading and saving, and reports of missing heads."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _usage() -> str:
    stages = "\n".join(f"  {name:<13} {what}" for name, what in _STAGES.items())
    return (
        f"rlprm {__version__}: train LLM agents with process rewards\n\n"
        f"usage: rlprm <stage> [--config FILE.yaml] [--key value ...]\n\nstages:\n{stages}\n\n"
        "rlprm <stage> --help lists a stage's settings.\n"
        "rlprm <stage> --overwrite removes what an earlier run wrote into output_dir, and starts anew.\n"
        "rlprm recipes lists the shipped recipes; rlprm recipes copy ENVIRONMENT FOLDER copies some.\n"
        "rlprm models lists pretrained models in Python packages; rlprm models get NAME writes one.\n"
        "rlprm report RUN writes an HTML page of results and trajectories; rlprm view RUN shows it in a\n"
        "browser; rlprm runs lists the runs below a folder, or compares those that are named.\n"
        f"{', '.join(STAGES)}: --accelerate_config zero2 launches several processes, with the file of\n"
        "that name in ds_configs/ or a path of your own."
    )


if __name__ == "__main__":
    sys.exit(main())
