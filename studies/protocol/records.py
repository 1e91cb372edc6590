"""The file of a unit: rows with the success of every task, costs, settings, and where it was made."""

from __future__ import annotations

import hashlib
import json
import re
import resource
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rlprm.errors import MismatchError
from rlprm.runtime.files import read_json, write_atomically
from rlprm.runtime.parsing.yaml_text import read_mapping
from rlprm.runtime.record import made as made_by_code

FOLDER = Path("docs/results/protocol")
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


def digest_of_recipes(folder: Path, stages: Iterable[str], model: str = "tiny", **more: Any) -> str:
    """Return a hash of what recipes and their bases set; comments and layout do not count.

    Args:
        folder: of the recipes.
        stages: first parts of their file names; those without a recipe are skipped.
        model: last part of their file names.
        more: what else counts.
    """
    found: dict[str, Any] = {}
    files = [folder / f"{stage}_{model}.yaml" for stage in stages]
    while files:
        file = files.pop()
        if file.is_file() and file.name not in found:
            found[file.name] = read_mapping(file)
            bases = found[file.name].get("base", [])
            files += [folder / base for base in ([bases] if isinstance(bases, str) else bases)]
    return hashlib.sha256(json.dumps([found, more], sort_keys=True).encode()).hexdigest()[:12]


def made() -> dict[str, Any]:
    """Return where and by which code a record is made, and the most memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {**made_by_code(), "peak_memory_gb": round(peak, 2)}
