"""Trajectories inside a page: compressed portions that the browser opens when a reader asks for them.

A page of 100,000 trajectories stays usable, since the browser reads one small index at first. A portion holds
whole candidates; the index says in which portion a candidate lies.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["Packer", "packed"]

_PORTION = 400_000
"""Characters of JSON in a portion, before compression."""
_GOAL = 200
"""Characters of a task's first message that are searched."""


def packed(value: Any) -> str:
    """Return plain values as compressed text that is safe inside an element of a page."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # Lone surrogates have no bytes: a model may have written half of a character.
    data = gzip.compress(text.encode("utf-8", "replace"), compresslevel=6, mtime=0)
    return base64.b64encode(data).decode("ascii")


class Packer:
    """Packs the candidates of one source and builds its index on the way."""

    def __init__(self) -> None:
        self._tasks: dict[str, int] = {}
        self._goals: list[str] = []
        self._columns: dict[str, list[Any]] = {
            name: [] for name in ("task", "sample", "ok", "o", "stop", "len", "portion", "place", "it")
        }
        self._ranks: dict[str, list[float | None]] = {}
        self._tokens: set[int] = set()
        self._portions = 0

    def portions(self, candidates: Iterable[dict[str, Any]]) -> Iterator[str]:
        """Yield portions, each as compressed text, in the order of their numbers."""
        waiting: list[dict[str, Any]] = []
        size = 0
        for candidate in candidates:
            self._add(candidate, place=len(waiting))
            waiting.append(candidate)
            size += _size(candidate)
            if size >= _PORTION:
                yield self._pack(waiting)
                waiting, size = [], 0
        if waiting:
            yield self._pack(waiting)

    def index(self) -> dict[str, Any]:
        """Return the index: tasks and goals, and columns with one entry a candidate."""
        columns = {
            name: column for name, column in self._columns.items() if any(x is not None for x in column)
        }
        return {
            "tasks": list(self._tasks), "goals": self._goals, "columns": columns, "ranks": self._ranks,
            "count": len(self._columns["task"]),
        }  # fmt: skip

    @property
    def token_ids(self) -> list[int]:
        """Ids of all tokens that were sampled."""
        return sorted(self._tokens)

    def _add(self, candidate: dict[str, Any], place: int) -> None:
        number = self._tasks.setdefault(candidate["t"], len(self._tasks))
        if number == len(self._goals):
            self._goals.append(" ".join(message["c"] for message in candidate["m"])[:_GOAL])
        columns = {
            "task": number, "sample": candidate["n"], "ok": int(candidate["ok"]), "o": candidate["o"],
            "stop": candidate["stop"], "len": len(candidate["steps"]), "portion": self._portions,
            "place": place, "it": candidate.get("it"),
        }  # fmt: skip
        for name, value in columns.items():
            self._columns[name].append(value)
        for name, scores in candidate.get("s", {}).items():
            self._ranks.setdefault(name, []).append(None if scores is None else scores["r"])
        for step in candidate["steps"]:
            self._tokens.update(step.get("ids", ()))

    def _pack(self, waiting: list[dict[str, Any]]) -> str:
        self._portions += 1
        return packed(waiting)


def _size(candidate: dict[str, Any]) -> int:
    texts = sum(len(message["c"]) for message in candidate["m"])
    for step in candidate["steps"]:
        texts += (
            len(step["a"]["c"]) + sum(len(answer["c"]) for answer in step["o"]) + 12 * len(step.get("lp", ()))
        )
    return texts + 100 * len(candidate.get("nodes", ())) + 200
