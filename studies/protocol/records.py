"""The file of a unit: rows with the success of every task, costs, settings, and where it was made."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import resource
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import rlprm
from rlprm.errors import MismatchError
from rlprm.runtime.files import read_json, write_atomically
from rlprm.runtime.yaml_text import read_mapping

FOLDER = Path("docs/results/protocol")
_LIBRARIES = ("torch", "transformers", "trl", "tokenizers", "numpy", "minigrid")
_NUMBERS = re.compile(r"\[\s*(-?[\d.e+-]+(?:,\s*-?[\d.e+-]+)*)\s*\]")

Record = dict[str, Any]


def write(file: Path, record: Mapping[str, Any]) -> None:
    """Write a record, a list of numbers on one line."""
    text = json.dumps(record, indent=1, ensure_ascii=False)
    text = _NUMBERS.sub(lambda match: "[" + ", ".join(re.split(r",\s*", match[1])) + "]", text)
    write_atomically(file, text + "\n")


def read_all(folder: Path, environment: str | None = None, group: str | None = None) -> list[Record]:
    """Return the records of a folder, by environment, group and seed."""
    found = [read_json(file) for file in folder.glob("*.json")] if folder.is_dir() else []
    chosen = [
        record
        for record in found
        if environment in (None, record["environment"]) and group in (None, record["group"])
    ]
    return sorted(chosen, key=lambda record: (record["environment"], record["group"], record["seed"]))


def require_same_settings(records: Iterable[Mapping[str, Any]]) -> None:
    """Refuse records of one group that were made with different settings.

    Raises:
        MismatchError: naming a setting and both values.
    """
    first: Mapping[str, Any] | None = None
    for record in records:
        first = first or record
        before, now = _flat(first), _flat(record)
        for name in sorted(before.keys() | now.keys()):
            if before.get(name) != now.get(name):
                raise MismatchError(
                    f"seeds {first['seed']} and {record['seed']} of {record['environment']} "
                    f"{record['group']} have different settings: {name} {before.get(name)!r}, "
                    f"{now.get(name)!r}"
                )


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    of_stages = record["settings"].items()
    named = {f"{stage}.{name}": value for stage, settings in of_stages for name, value in settings.items()}
    return {"scale": record["scale"], **named}


def require_scale(file: Path, scale: float) -> None:
    """Refuse a record of another scale in place of a unit's: a trial is no result, and no result a trial.

    Raises:
        MismatchError: naming both.
    """
    if (found := read_json(file)["scale"]) != scale:
        raise MismatchError(f"{file}: got a record of scale {found:g}, allowed: {scale:g}; remove the file")


def digest_of_recipes(folder: Path, stages: Iterable[str], **more: Any) -> str:
    """Return a hash of what tiny recipes and their bases set; comments and layout do not count.

    Args:
        folder: of the recipes.
        stages: first parts of their file names; those without a recipe are skipped.
        more: what else counts.
    """
    found: dict[str, Any] = {}
    files = [folder / f"{stage}_tiny.yaml" for stage in stages]
    while files:
        file = files.pop()
        if file.is_file() and file.name not in found:
            found[file.name] = read_mapping(file)
            bases = found[file.name].get("base", [])
            files += [folder / base for base in ([bases] if isinstance(bases, str) else bases)]
    return hashlib.sha256(json.dumps([found, more], sort_keys=True).encode()).hexdigest()[:12]


def made() -> dict[str, Any]:
    """Return where and by which code a record is made."""
    return {
        "commit": _git("rev-parse", "HEAD") or "unknown",
        "changed_files": bool(_git("status", "--porcelain", ":/rlprm", ":/recipes", ":/studies")),
        "rlprm": rlprm.__version__,
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in _LIBRARIES},
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
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


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(
            ["git", *arguments], capture_output=True, text=True, check=True, cwd=Path(__file__).parent
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
