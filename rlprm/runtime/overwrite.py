"""``--overwrite``: a stage removes what an earlier run wrote into its folder, then starts anew.

A folder is cleared if it holds the record of a run, and if every file in it is one that the stages of this
package write. Any other folder is refused and stays as it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from rlprm.errors import ConfigError, MismatchError
from rlprm.runtime.files import read_json

__all__ = ["FLAG", "check_clearable", "clear", "foreign_files", "is_overwriting", "overwriting"]

FLAG = "--overwrite"
_ASKED: ContextVar[bool] = ContextVar("overwriting", default=False)
_TEMPORARY = re.compile(r"\.(.+)\.\d+")
"""A file that was being written when its process was killed, see :mod:`rlprm.runtime.files`."""

_SHARDS = ("meta.json", "wave-*.jsonl", "README.md")
_USAGE = "usage-*.json"
_MODEL = (
    "config.json", "generation_config.json", "model*.safetensors", "model.safetensors.index.json",
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja", "prm_manifest.json",
    "training_args.bin",
)  # fmt: skip
_ADAPTER = ("README.md", "adapter_config.json", "adapter_model*.safetensors")
_ENGINE = (
    *_MODEL, *_ADAPTER, "pytorch_model*.bin",
    "optimizer*.pt", "optimizer*.bin", "scheduler*.pt", "scheduler*.bin", "scaler*.pt", "rng_state*.pth",
    "random_states_*.pkl", "trainer_state.json", "state.json", "labels.pt", "latest", "zero_to_fp32.py",
)  # fmt: skip


def _within(folder: str, names: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}" for name in names)


_BOARD = (*_within("tensorboard", ["events.out.tfevents.*"]), *_within("runs/*", ["events.out.tfevents.*"]))
_TRAINED = (
    "stage.json", "run.json", "README.md", *_MODEL, *_within("adapter", [*_MODEL, *_ADAPTER]), *_BOARD,
    *_within("checkpoint-*", _ENGINE),
    *_within("checkpoint-*/global_step*", ["*.pt"]),
)  # fmt: skip
_WRITTEN: Mapping[str, tuple[str, ...]] = {
    "sft": _TRAINED,
    "train-prm": _TRAINED,
    "collect": ("stage.json", _USAGE, *_SHARDS),
    "probe-actions": ("stage.json", _USAGE, *_SHARDS),
    "estimate": ("stage.json", _USAGE, *_SHARDS, "labels*.jsonl", "labels*.meta.json"),
    "evaluate": (
        "stage.json", _USAGE, "summary.json", "table.txt", "compute.json", "success_by_budget.png",
        "success_by_compute.png", "searches_by_cost.png", "auc_by_position.png", "calibration.png",
        "example.png", *_BOARD, *_within("pool", _SHARDS), *_within("dev-pool", _SHARDS),
        "scores/*.jsonl", "dev-scores/*.jsonl", *_within("beams/*", _SHARDS), "searches/*.jsonl",
        *_within("searches/*", _SHARDS),
    ),
    "train-rl": (
        "stage.json", *_MODEL, *_BOARD, "summary.json", "metrics.jsonl", "curves.png", "before.json",
        "after.json", "repeat_probe.json", *_within("adapter", [*_MODEL, *_ADAPTER]),
        *_within("best/iteration-*", _MODEL), *_within("best/iteration-*/adapter", [*_MODEL, *_ADAPTER]),
        *_within("checkpoints/iteration-*", _ENGINE),
        *_within("checkpoints/iteration-*/pytorch_model", ["*.pt"]),
        *_within("rollback/iteration-*", _ENGINE), *_within("rollback/iteration-*/pytorch_model", ["*.pt"]),
        *_within("rollouts", _SHARDS), *_within("checkpoints/iteration-*/rollouts", _SHARDS), "wandb.json",
        *_within("refresh/trajectories-*", _SHARDS), *_within("refresh/prm-*", _TRAINED),
        "refresh/prm-*/adapter/*",
    ),
}  # fmt: skip
"""Stage → paths that it writes below its folder; each part of a path is a pattern."""
_RECORDS = (
    "stage.json", "run.json", "meta.json", "metrics.jsonl", "before.json", "pool/meta.json",
    "dev-pool/meta.json",
)  # fmt: skip
"""Files that tell a run's folder, finished or killed, from a model that somebody downloaded."""


@contextmanager
def overwriting(asked: bool) -> Iterator[None]:
    """Let the stages that run inside clear their folders first, if asked."""
    before = _ASKED.set(asked)
    try:
        yield
    finally:
        _ASKED.reset(before)


def is_overwriting() -> bool:
    """Whether this code runs inside :func:`overwriting`, and was asked to."""
    return _ASKED.get()


def check_clearable(folder: str | Path, stage: str, settings: Mapping[str, Any]) -> None:
    """Refuse a folder that must not be cleared; nothing is removed.

    Args:
        folder: of the stage's results; it may be missing.
        stage: that is about to run.
        settings: of the stage that is about to run.

    Raises:
        ConfigError: if a setting names an input inside the folder.
        MismatchError: if the folder holds no record of a run, the results of another stage, or a file that
            the stage does not write.
    """
    folder = Path(folder)
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    for name, path in _paths(settings):
        if folder.resolve() in (path.resolve(), *path.resolve().parents):
            raise ConfigError(f"overwrite: {name} reads {path}, which lies in {folder}, the folder to clear")
    if not any((folder / name).is_file() for name in _RECORDS):
        raise MismatchError(
            f"{folder} is not overwritten: it has no record of a run ({', '.join(_RECORDS[:4])}, "
            "...); choose another output_dir, or delete the folder"
        )
    record = folder / "stage.json"
    wrote = read_json(record).get("stage", stage) if record.is_file() else stage
    if wrote != stage:
        raise MismatchError(
            f"{folder} is not overwritten: it holds the results of the stage {wrote}, and {stage} removes "
            "its own alone; choose another output_dir, or delete the folder"
        )
    if foreign := foreign_files(folder, stage):
        raise MismatchError(
            f"{folder} is not overwritten: it holds {foreign[0]}, which the stage {stage} did not write; "
            "move that file, or choose another output_dir"
        )


def clear(folder: str | Path, stage: str, settings: Mapping[str, Any]) -> None:
    """Remove what an earlier run of a stage wrote; the folder itself stays.

    Called when all checks of the stage are behind it, by one process of a launch.

    Raises:
        ConfigError, MismatchError: see :func:`check_clearable`; nothing is removed then.
    """
    check_clearable(folder, stage, settings)
    if not Path(folder).is_dir():
        return
    for place, directories, files in os.walk(folder, topdown=False):
        for file in files:
            Path(place, file).unlink()
        for directory in directories:
            Path(place, directory).rmdir()


def foreign_files(folder: Path, stage: str) -> list[str]:
    """Return the files of a folder, relative to it, that a stage does not write; links are among them."""
    patterns = [pattern.split("/") for pattern in _WRITTEN.get(stage, ())]
    foreign = []
    for path, directories, files in os.walk(folder):
        linked = [name for name in directories if Path(path, name).is_symlink()]
        for name in (*files, *linked):
            relative = Path(path, name).relative_to(folder)
            temporary = _TEMPORARY.fullmatch(name)
            parts = [*relative.parts[:-1], temporary[1] if temporary else name]
            if name in linked or not any(_matches(parts, pattern) for pattern in patterns):
                foreign.append(relative.as_posix())
    return sorted(foreign)


def _matches(parts: list[str], pattern: list[str]) -> bool:
    return len(parts) == len(pattern) and all(map(fnmatchcase, parts, pattern))


def _paths(settings: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    """Yield settings that name something on disk, the stage's own destinations aside."""
    for name, value in settings.items():
        if name in ("output_dir", "logging_dir"):
            continue
        if isinstance(value, list | tuple):
            yield from _paths({f"{name}.{i}": inner for i, inner in enumerate(value)})
        elif isinstance(value, Mapping):
            yield from _paths({f"{name}.{key}": inner for key, inner in value.items()})
        elif isinstance(value, str) and value and len(value) < 4096 and Path(value).exists():
            yield name, Path(value)
