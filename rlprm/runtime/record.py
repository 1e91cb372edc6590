"""The record of a finished stage, by which running the stage again reuses or refuses its result."""

from __future__ import annotations

import json
import logging
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rlprm import __version__
from rlprm.errors import MismatchError, refuse_other_settings
from rlprm.runtime.files import read_json, write_json
from rlprm.runtime.overwrite import check_clearable, clear, is_overwriting
from rlprm.runtime.parsing.renames import current_settings
from rlprm.runtime.processes import is_first

_RECORD = "stage.json"
_LIBRARIES = ("torch", "transformers", "trl", "tokenizers", "numpy", "minigrid")
FAILED = "failed_episodes"
"""Name among a stage's results of how many episodes failed."""

log = logging.getLogger(__name__)


def is_finished(folder: str | Path, stage: str, config: Mapping[str, Any]) -> bool:
    """Whether a folder already holds the result of this stage with this configuration.

    A result with failed episodes is none: they are to be run again.

    Under ``--overwrite`` the answer is no; :func:`recorded` removes the result when the stage begins.

    Raises:
        ConfigError: see :func:`rlprm.runtime.overwrite.check_clearable`.
        MismatchError: if it holds the result of another stage or configuration.
    """
    if is_overwriting():
        if is_first():  # the others may come when it is clearing already
            check_clearable(folder, stage, config)
        return False
    path = Path(folder) / _RECORD
    if not path.exists():
        return False
    found = read_json(path)
    if found["stage"] != stage:
        raise MismatchError(f"{folder} holds the results of {found['stage']}; choose another output_dir")
    wanted = json.loads(json.dumps({"stage": stage, **config}))
    before = {"stage": found["stage"], **current_settings(found["stage"], found["config"])}
    refuse_other_settings(f"{folder} holds a finished run", before, wanted)
    if failed := found["results"].get(FAILED, 0):
        log.info("%s: %d episodes had failed; running them again", folder, failed)
    return not failed


@contextmanager
def recorded(folder: str | Path, stage: str, config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Run a stage; if it succeeds, write ``stage.json`` with its settings, seconds and results.

    The record also says by which code and where the stage ran (:func:`made`), as it was when the stage began.

    If several processes run the stage, the first one writes the record, as it saves the results.

    Yields:
        A mapping to put results into.
    """
    if is_overwriting() and is_first():
        clear(folder, stage, config)
    results: dict[str, Any] = {}
    made_by = made() if is_first() else {}
    started = time.perf_counter()
    yield results
    if not is_first():
        return
    seconds = round(time.perf_counter() - started, 2)
    record = {
        "stage": stage,
        "version": __version__,
        "seconds": seconds,
        "made": made_by,
        "results": results,
        "config": dict(config),
    }
    write_json(Path(folder) / _RECORD, record)


def has_record(folder: str | Path) -> bool:
    """Whether a folder holds the record of a finished stage."""
    return (Path(folder) / _RECORD).is_file()


def read_record(folder: str | Path) -> dict[str, Any]:
    """Return the record of a finished stage."""
    record: dict[str, Any] = read_json(Path(folder) / _RECORD)
    return record


def made() -> dict[str, Any]:
    """Return where and by which code a result is made.

    ``commit`` and ``changed_files`` are None if this package is not a checkout of its repository.
    """
    import torch  # takes seconds: only for those that run a stage

    # An installed package may lie within the repository of another project.
    is_checkout = _git("ls-files", "--error-unmatch", Path(__file__).name) is not None
    commit = _git("rev-parse", "HEAD") if is_checkout else None
    changed = _git("status", "--porcelain", ":/rlprm", ":/recipes", ":/studies") if is_checkout else None
    return {
        "commit": commit,
        "changed_files": None if changed is None else bool(changed),
        "rlprm": __version__,
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
    }


def processor() -> str:
    """Return the kind of processor; numbers of one seed repeat to the digit on one kind only."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    values = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    named = {key.strip(): value.strip() for key, value in values.items()}
    numbers = ", ".join(f"{key} {named[key]}" for key in ("cpu family", "model", "stepping") if key in named)
    return f"{named.get('model name', platform.machine())} ({numbers})" if numbers else platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """Return the output of a git command in this folder; None if it fails."""
    try:
        return subprocess.run(
            ["git", *arguments], capture_output=True, text=True, check=True, cwd=Path(__file__).parent
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


class Stopwatch:
    """Adds up the seconds of named parts of a stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last: dict[str, float] = {}

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Time the body and add it to ``name``."""
        started = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - started
            self.seconds[name] = round(self.seconds.get(name, 0.0) + elapsed, 2)

    def lap(self) -> dict[str, float]:
        """Return the seconds of each part since the last call."""
        lap = {name: round(s - self._last.get(name, 0.0), 3) for name, s in self.seconds.items()}
        self._last = dict(self.seconds)
        return lap
