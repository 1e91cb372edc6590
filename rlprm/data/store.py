"""Trajectories on disk: a folder of JSON-lines shards, one per wave of a collection.

    <folder>/meta.json            what was collected, and with which settings
    <folder>/README.md            a dataset card: the columns and their types
    <folder>/wave-00000.jsonl     one trajectory a line

A shard appears whole or not at all, so a killed collection is resumed by
running the waves that have no shard. ``datasets.load_dataset("<folder>")`` reads
it without this package. The card matters where the first shard holds nothing but
episodes that failed to start: types cannot be guessed from their empty lists.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from rlprm.data.files import read_json, write_atomically, write_json
from rlprm.errors import ArtifactError, DataError, refuse_other_settings
from rlprm.types import End, Message, Outcome, Split, Step, StopReason, Task, Trajectory

FORMAT = 1
_SHARD = re.compile(r"wave-(\d{5,})\.jsonl")
_CARD = "README.md"


@dataclass(frozen=True)
class TrajectoryStore:
    """A folder of trajectories."""

    folder: Path
    meta: Mapping[str, Any]

    @classmethod
    def create(cls, folder: str | Path, meta: Mapping[str, Any]) -> TrajectoryStore:
        """Open a store for writing: a new one, or one with exactly these settings.

        Raises:
            MismatchError: if the folder holds trajectories collected with other settings.
        """
        folder = Path(folder)
        wanted = json.loads(json.dumps({"format": FORMAT, **meta}))
        path = folder / "meta.json"
        if path.exists():
            refuse_other_settings(f"{folder} holds trajectories collected", _read_meta(folder), wanted)
        else:
            write_json(path, wanted)
        if not (folder / _CARD).exists():
            write_atomically(folder / _CARD, _card())
        return cls(folder, wanted)

    @classmethod
    def open(cls, folder: str | Path) -> TrajectoryStore:
        """Open an existing store for reading.

        Raises:
            ArtifactError: if there is none.
            DataError: if another version of this package wrote it.
        """
        folder = Path(folder)
        if not (folder / "meta.json").exists():
            raise ArtifactError(f"no trajectories at {folder} (expected {folder / 'meta.json'})")
        meta = _read_meta(folder)
        if meta.get("format") != FORMAT:
            raise DataError(f"{folder} has format {meta.get('format')!r}, this version reads {FORMAT}")
        return cls(folder, meta)

    def has(self, wave: int) -> bool:
        """Whether a wave's shard is complete."""
        return self._shard(wave).exists()

    def write(self, wave: int, trajectories: Sequence[Trajectory]) -> None:
        """Store one wave, atomically."""
        lines = (json.dumps(to_row(t), ensure_ascii=False) for t in trajectories)
        write_atomically(self._shard(wave), "".join(line + "\n" for line in lines))

    def read(self, *, damaged: Literal["raise", "skip"] = "raise") -> list[Trajectory]:
        """Read all trajectories, in order.

        Args:
            damaged: ``"skip"`` leaves damaged lines out, with a warning that names them.

        Raises:
            DataError: if there are none, or a line is damaged; names shard and line.
        """
        trajectories = list(self._lines(damaged))
        if not trajectories:
            raise DataError(f"{self.folder} holds no trajectories")
        return trajectories

    def _shard(self, wave: int) -> Path:
        return self.folder / f"wave-{wave:05d}.jsonl"

    def _lines(self, damaged: Literal["raise", "skip"]) -> Iterator[Trajectory]:
        found = [(int(match[1]), p) for p in self.folder.iterdir() if (match := _SHARD.fullmatch(p.name))]
        for _, shard in sorted(found):
            with shard.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    try:
                        yield from_row(json.loads(line))
                    except (ValueError, KeyError, TypeError) as error:
                        message = f"{shard}, line {number} is damaged: {type(error).__name__}: {error}"
                        if damaged == "raise":
                            raise DataError(message) from error
                        warnings.warn(f"{message}; left out", stacklevel=3)


def _read_meta(folder: Path) -> dict[str, Any]:
    meta = read_json(folder / "meta.json")
    if not isinstance(meta, dict):
        raise DataError(f"{folder / 'meta.json'} must hold a mapping, got {type(meta).__name__}")
    return meta


def _card() -> str:
    """Return a dataset card that tells ``datasets`` the shards and the types of their columns."""
    plain = {
        "string": "environment task_id split task_spec outcome_definition stop end policy template error",
        "int64": "sample seed",
        "float64": "outcome temperature",
        "bool": "success",
    }
    listed = {
        "string": "actions",
        "int64": "token_ids action_mask step_starts step_ends",
        "float64": "logprobs rewards",
    }
    columns: list[dict[str, Any]] = [
        *({"name": name, "dtype": kind} for kind, names in plain.items() for name in names.split()),
        *({"name": name, "list": kind} for kind, names in listed.items() for name in names.split()),
        {"name": "messages", "list": [{"name": n, "dtype": "string"} for n in ("role", "content")]},
    ]
    configs = [{"config_name": "default", "data_files": "wave-*.jsonl", "features": columns}]
    front = yaml.safe_dump({"configs": configs}, sort_keys=False)
    return f"---\n{front}---\nTrajectories of an agent, one a line; how they were made is in meta.json.\n"


def to_row(trajectory: Trajectory) -> dict[str, Any]:
    """Flatten a trajectory into a row whose columns have the same types in every shard."""
    return {
        "environment": trajectory.task.environment,
        "task_id": trajectory.task.id,
        "split": trajectory.task.split.value,
        "task_spec": json.dumps(dict(trajectory.task.spec), sort_keys=True),
        "sample": trajectory.sample,
        "seed": trajectory.seed,
        "messages": [dict(message) for message in trajectory.messages],
        "token_ids": list(trajectory.token_ids),
        "action_mask": list(trajectory.action_mask),
        "logprobs": list(trajectory.logprobs),
        "step_starts": [step.start for step in trajectory.steps],
        "step_ends": [step.end for step in trajectory.steps],
        "actions": [step.action for step in trajectory.steps],
        "rewards": [float(step.reward) for step in trajectory.steps],
        "outcome": float(trajectory.outcome.score),
        "success": bool(trajectory.outcome.success),
        "outcome_definition": trajectory.outcome.definition,
        "stop": trajectory.stop.value if trajectory.stop else "",
        "end": trajectory.end.value,
        "temperature": float(trajectory.temperature),
        "policy": trajectory.policy,
        "template": trajectory.template,
        "error": trajectory.error or "",
    }


def from_row(row: Mapping[str, Any]) -> Trajectory:
    """Rebuild a trajectory from its row.

    Raises:
        KeyError, TypeError, ValueError: if a column is missing or columns do not fit together.
    """
    length = len(row["token_ids"])
    if not length == len(row["action_mask"]) == len(row["logprobs"]):
        raise ValueError("token_ids, action_mask and logprobs differ in length")
    steps = tuple(
        Step(start, end, action, reward)
        for start, end, action, reward in zip(
            row["step_starts"], row["step_ends"], row["actions"], row["rewards"], strict=True
        )
    )
    if any(not 0 < step.start <= step.end < length for step in steps):
        raise ValueError(f"a step lies outside the {length} tokens")
    return Trajectory(
        task=Task(row["environment"], row["task_id"], Split(row["split"]), json.loads(row["task_spec"])),
        sample=int(row["sample"]),
        seed=int(row["seed"]),
        messages=tuple(Message(role=m["role"], content=m["content"]) for m in row["messages"]),
        token_ids=tuple(row["token_ids"]),
        action_mask=tuple(row["action_mask"]),
        logprobs=tuple(row["logprobs"]),
        steps=steps,
        outcome=Outcome(float(row["outcome"]), bool(row["success"]), row["outcome_definition"]),
        stop=StopReason(row["stop"]) if row["stop"] else None,
        end=End(row["end"]),
        temperature=float(row["temperature"]),
        policy=row["policy"],
        template=row["template"],
        error=row["error"] or None,
    )
