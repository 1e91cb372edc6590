"""Environments with settings, data among them: they promise what those promise that have the default ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

from rlprm import envs
from rlprm.types import End
from tests.toys.webshop import small_data


def _official(folder: Path) -> dict[str, Any]:
    return {"data": str(small_data(folder, 300, colors=6))}


def _gsm8k(folder: Path) -> dict[str, Any]:
    rows = [
        {"question": f"What is {n} + 1?", "answer": f"{n} + 1 = {n + 1}\n#### {n + 1}"} for n in range(600)
    ]
    return {"source": "gsm8k", "data": _written(folder, rows)}


def _multiple_choice(folder: Path) -> dict[str, Any]:
    rows = [
        {"question": f"What is {n} + 1?", "choices": [str(n + k) for k in range(4)], "answer": 1}
        for n in range(600)
    ]
    return {"source": "multiple_choice", "data": _written(folder, rows)}


def _written(folder: Path, rows: list[dict[str, Any]]) -> str:
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / "train.jsonl")


GIVEN: Mapping[str, tuple[str, Callable[[Path], dict[str, Any]]]] = {
    "webshop, official data": ("webshop", _official),
    "math, gsm8k": ("math", _gsm8k),
    "math, multiple choice": ("math", _multiple_choice),
    "babyai, AgentGym's rules": ("babyai", lambda _: {"rules": "agentgym"}),
}
"""Name of a case → environment, and what writes its data into a new folder and returns its settings."""


@cache
def _data() -> TemporaryDirectory[str]:
    """Return the folder that all data are written into; it goes with the process."""
    return TemporaryDirectory(prefix="given-")


@cache
def _with_data(name: str) -> SimpleNamespace:
    environment, write = GIVEN[name]
    module = envs.load(environment)
    tasks = partial(module.tasks, **write(Path(_data().name, name.replace(" ", "-"))))
    return SimpleNamespace(**vars(module) | {"tasks": tasks})


def load(name: str) -> Any:
    """Return the environment under test of that name: a module, or one with settings for data in a folder."""
    return _with_data(name) if name in GIVEN else envs.load(name)


def ends_of(name: str) -> list[End]:
    """Return the ends that a case offers."""
    return [End.ON_SUCCESS] if name == "babyai, AgentGym's rules" else [End.DECLARED, End.ON_SUCCESS]


def environment_of(name: str) -> str:
    """Return the environment that a case is of."""
    return GIVEN[name][0] if name in GIVEN else name
