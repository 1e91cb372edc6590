"""The record of a finished stage, by which running the stage again reuses or refuses its result."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlprm import __version__
from rlprm.errors import MismatchError, refuse_other_settings
from rlprm.runtime.files import read_json, write_json
from rlprm.runtime.overwrite import check_clearable, clear, is_overwriting
from rlprm.runtime.processes import is_first
from rlprm.runtime.renames import current_settings

_RECORD = "stage.json"
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

    If several processes run the stage, the first one writes the record, as it saves the results.

    Yields:
        A mapping to put results into.
    """
    if is_overwriting() and is_first():
        clear(folder, stage, config)
    results: dict[str, Any] = {}
    started = time.perf_counter()
    yield results
    if not is_first():
        return
    seconds = round(time.perf_counter() - started, 2)
    record = {
        "stage": stage,
        "version": __version__,
        "seconds": seconds,
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
