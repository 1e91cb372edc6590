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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import yaml

from rlprm import envs
from rlprm.data.formats import TOOL_CALL
from rlprm.data.shards import FORMAT, Shards
from rlprm.errors import MismatchError
from rlprm.runtime.files import write_atomically
from rlprm.types import End, Message, Outcome, Split, Step, StopReason, Task, ToolCall, Trajectory

__all__ = ["FORMAT", "TrajectoryStore", "from_row", "to_row"]

_CARD = "README.md"
_STRUCTURE = ("thought", "tool_calls")
"""Parts of a message that the rows of text formats do not have; null where a message has none."""


class TrajectoryStore(Shards):
    """A folder of trajectories."""

    HOLDS = "trajectories"

    @classmethod
    def create(cls, folder: str | Path, meta: Mapping[str, Any]) -> Self:
        """Open a store for writing: a new one, or one with exactly these settings.

        Raises:
            MismatchError: if the folder holds trajectories made with other settings.
        """
        store = super().create(folder, meta)
        if not (store.folder / _CARD).exists():
            has_calls, is_exact = meta.get("action_format") == TOOL_CALL, meta.get("exact", True)
            write_atomically(store.folder / _CARD, _card(has_calls, is_exact=is_exact))
        return store

    def write(self, wave: int, trajectories: Sequence[Trajectory]) -> None:
        """Store one wave, atomically."""
        self.write_rows(wave, map(to_row, trajectories))

    def read(self, *, damaged: Literal["raise", "skip"] = "raise") -> list[Trajectory]:
        """Read all trajectories, in order.

        Args:
            damaged: ``"skip"`` leaves damaged lines out, with a warning that names them.

        Raises:
            DataError: if there are none, or a line is damaged; names shard and line.
        """
        return self.read_rows(from_row, damaged=damaged)

    def read_of(self, environment: str) -> list[Trajectory]:
        """Read all trajectories, each of which must be of this environment.

        Raises:
            DataError: see :meth:`read`.
            MismatchError: for a trajectory of another environment. Its code is not imported.
        """
        trajectories = self.read()
        for trajectory in trajectories:
            if not envs.belongs_to(trajectory.task, environment):
                raise MismatchError(
                    f"{self.folder} holds a trajectory of the environment {trajectory.task.environment!r} "
                    f"(task {trajectory.task.id!r}), the run's is {environment!r}"
                )
        return trajectories

    def read_wave(self, wave: int) -> list[Trajectory]:
        """Read the trajectories of one wave, in order.

        Raises:
            DataError: if a line is damaged; names shard and line.
        """
        return self.read_wave_rows(wave, from_row)


def _card(has_calls: bool, *, is_exact: bool) -> str:
    """Return a dataset card that tells ``datasets`` the shards and the types of their columns."""
    plain: dict[str, str] = {
        "string": "environment task_id split task_spec outcome_definition stop end policy template error",
        "int64": "sample seed",
        "float64": "outcome temperature",
        "bool": "success",
    }
    listed = {
        "string": "actions",
        "int64": "token_ids action_mask step_starts step_ends",
        "float64": "logprobs rewards",
        "bool": "valid",
    }
    if not is_exact:
        plain |= {"int64": f"{plain['int64']} fed_tokens", "bool": f"{plain['bool']} exact"}
        parts = ("role", "content", *_STRUCTURE)  # thoughts come apart from the rest
    else:
        parts = ("role", "content", *(_STRUCTURE if has_calls else ()))
    columns: list[dict[str, Any]] = [
        *({"name": name, "dtype": kind} for kind, names in plain.items() for name in names.split()),
        *({"name": name, "list": kind} for kind, names in listed.items() for name in names.split()),
        {"name": "messages", "list": [{"name": n, "dtype": "string"} for n in parts]},
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
        "messages": _message_rows(trajectory.messages),
        "token_ids": list(trajectory.token_ids),
        "action_mask": list(trajectory.action_mask),
        "logprobs": list(trajectory.logprobs),
        "step_starts": [step.start for step in trajectory.steps],
        "step_ends": [step.end for step in trajectory.steps],
        "actions": [step.action for step in trajectory.steps],
        "rewards": [float(step.reward) for step in trajectory.steps],
        "valid": [bool(step.valid) for step in trajectory.steps],
        "outcome": float(trajectory.outcome.score),
        "success": bool(trajectory.outcome.success),
        "outcome_definition": trajectory.outcome.definition,
        "stop": trajectory.stop.value if trajectory.stop else "",
        "end": trajectory.end.value,
        "temperature": float(trajectory.temperature),
        "policy": trajectory.policy,
        "template": trajectory.template,
        "error": trajectory.error or "",
        # Files from before the field have no such columns, and those of exact tokens stay as they were.
        **({} if trajectory.exact else {"exact": False, "fed_tokens": trajectory.fed_tokens}),
    }


def _message_rows(messages: Sequence[Message]) -> list[dict[str, Any]]:
    if not any("tool_calls" in message or "thought" in message for message in messages):
        return [dict(message) for message in messages]
    return [
        {
            "role": message["role"],
            "content": message["content"],
            "thought": message.get("thought"),
            "tool_calls": json.dumps(message["tool_calls"]) if "tool_calls" in message else None,
        }
        for message in messages
    ]


def _message(row: Mapping[str, Any]) -> Message:
    message = Message(role=row["role"], content=row["content"])
    if row.get("thought") is not None:
        message["thought"] = str(row["thought"])
    if row.get("tool_calls") is not None:
        calls = json.loads(row["tool_calls"])
        message["tool_calls"] = [ToolCall(name=c["name"], arguments=dict(c["arguments"])) for c in calls]
    return message


def from_row(row: Mapping[str, Any]) -> Trajectory:
    """Rebuild a trajectory from its row.

    Raises:
        KeyError, TypeError, ValueError: if a column is missing or columns do not fit together.
    """
    length = len(row["token_ids"])
    if not length == len(row["action_mask"]) == len(row["logprobs"]):
        raise ValueError("token_ids, action_mask and logprobs differ in length")
    valid = row.get("valid", [True] * len(row["actions"]))  # collections of before have no such column
    steps = tuple(
        Step(start, end, action, reward, done)
        for start, end, action, reward, done in zip(
            row["step_starts"], row["step_ends"], row["actions"], row["rewards"], valid, strict=True
        )
    )
    if any(not 0 < step.start <= step.end < length for step in steps):
        raise ValueError(f"a step lies outside the {length} tokens")
    return Trajectory(
        task=Task(row["environment"], row["task_id"], Split(row["split"]), json.loads(row["task_spec"])),
        sample=int(row["sample"]),
        seed=int(row["seed"]),
        messages=tuple(map(_message, row["messages"])),
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
        exact=row.get("exact") is not False,
        fed_tokens=row.get("fed_tokens"),
    )
