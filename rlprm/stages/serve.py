"""vLLM servers for a recipe's policy: lines are printed, servers started and stopped (docs/serving.md)."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

import torch

from rlprm.errors import ArtifactError, ConfigError
from rlprm.models.hub.download import model_folder
from rlprm.models.loading import context_length_of
from rlprm.serving.vllm_line import Line, line_of, url_of
from rlprm.serving.vllm_server import python_of_vllm, running, stopping_on_sigterm, wait_for, watch
from rlprm.serving.vllm_settings import ServeConfig

__all__ = ["run"]

log = logging.getLogger(__name__)
_CLEANING = 20.0


def run(config: ServeConfig, command: Sequence[str] = ()) -> int:
    """Start servers, and stop them when a command has ended, or at Ctrl-C.

    Args:
        config: settings.
        command: run when all servers answer; without one the servers run until they are interrupted.

    Returns:
        Exit status of the command.

    Raises:
        ArtifactError: if there is no vLLM, or no model.
        ConfigError: for a context that is longer than the model's, or a server that does not start.
        ServersGoneError: if a server ends before all answer, or later all have ended.
    """
    lines = _lines(config)
    print("\n".join(map(str, lines)), flush=True)
    if config.dry_run:
        return 0
    urls = [url_of(config, number) for number in range(config.servers)]
    with stopping_on_sigterm(), running(config, lines) as servers:
        log.info("starting %d servers; logs are in %s", len(servers), config.log_dir)
        wait_for(config, servers)
        log.info('ready; stages use them with: --server "[%s]"', ", ".join(urls))
        if command:
            return _run_beside(config, servers, command)
        try:
            for _ in watch(config, servers):
                time.sleep(1)
        except KeyboardInterrupt:
            log.info("stopping")
    return 0


def _lines(config: ServeConfig) -> list[Line]:
    """Return the lines of the servers; a dry run needs neither vLLM nor the model."""
    longest: int | None
    try:
        longest, model = context_length_of(config.model), str(model_folder(config.model).absolute())
        python = python_of_vllm(config.vllm_python)
    except ArtifactError:
        if not config.dry_run:
            raise
        longest, model, python = None, config.model, config.vllm_python or ".venv-vllm/bin/python"
    if config.context_length is not None and longest is not None and config.context_length > longest:
        raise ConfigError(
            f"context_length: got {config.context_length}, allowed: up to the model's {longest}"
        )
    on_gpu, length = torch.cuda.is_available(), config.context_length or longest
    return [
        line_of(config, number, python=python, model=model, context_length=length, on_gpu=on_gpu)
        for number in range(config.servers)
    ]


def _run_beside(
    config: ServeConfig, servers: Sequence[subprocess.Popen[bytes]], command: Sequence[str]
) -> int:
    words = [sys.executable, "-m", "rlprm.cli", *command[1:]] if command[0] == "rlprm" else list(command)
    process = subprocess.Popen(words)
    looks = watch(config, servers)
    try:
        while process.poll() is None:
            next(looks)
            time.sleep(0.5)
    except BaseException:
        _end(process)
        raise
    return process.returncode


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command; Ctrl-C has reached it already, and it may be cleaning up."""
    for ask in (None, process.terminate, process.kill):
        if ask is not None:
            ask()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_CLEANING)
            return
