"""The trajectories of a run, as the viewer shows them: candidates of tasks with the scores of scorers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlprm.data.store import TrajectoryStore, from_row
from rlprm.errors import RlprmError
from rlprm.evaluation.candidate_files import read_scores
from rlprm.evaluation.search_store import SearchStore
from rlprm.functional.aggregation import AGGREGATIONS
from rlprm.report.finding import Part, Run
from rlprm.report.values import read_mapping
from rlprm.types import Message, StepScores, Trajectory

__all__ = ["Source", "candidates", "sources_of"]

_DIGITS = 4
_POOLS = (("pool", "scores", "test tasks"), ("dev-pool", "dev-scores", "dev tasks"))


@dataclass(frozen=True)
class Source:
    """One folder of trajectories."""

    title: str
    kind: str
    """``pool``, ``search``, ``collection`` or ``rl``."""
    folder: Path
    scores: Mapping[str, Path]
    """Scorer → its file of scores, one line a trajectory."""
    rules: Mapping[str, str]
    """Scorer → the rule from step scores to the score that ranks; ``last`` where none was chosen."""
    tokenizer: Path | None = None
    """``tokenizer.json`` of the model that acted, if it is on this machine."""


def sources_of(run: Run) -> list[Source]:
    """Return the folders of trajectories of a run, in the order in which a reader wants them."""
    found: list[Source] = []
    for part in run.parts:
        title, tokenizer = run.title_of(part), _tokenizer(part)
        if part.stage == "evaluate":
            found += _of_evaluation(part, title, tokenizer)
        elif part.stage == "train-rl":
            found += _if_any(part.folder / "rollouts", f"{title}: episodes by iteration", "rl", tokenizer)
        elif part.stage in ("collect", "trajectories"):
            found += _if_any(part.folder, title, "collection", tokenizer)
    order = ("pool", "search", "rl", "collection")
    return sorted(found, key=lambda source: order.index(source.kind))


def candidates(source: Source) -> Iterator[dict[str, Any]]:
    """Yield the candidates of a source as plain values, shard by shard.

    Yields:
        ``t`` task, ``n`` sample, ``ok`` success, ``o`` the environment's score, ``stop``, ``err``, ``m``
        messages before the first action, ``steps``, ``s`` scorer → values, and what a search or RL adds.

    Raises:
        DataError: if a line is damaged; names shard and line.
    """
    rows = _search_rows(source) if source.kind == "search" else _rows(source)
    scores = {name: _scores(path) for name, path in source.scores.items()}
    for trajectory, more in rows:
        made = _candidate(trajectory, more)
        key = trajectory.task.id, trajectory.sample
        made["s"] = {
            name: _scored(of_scorer.get(key), source.rules.get(name, "last"))
            for name, of_scorer in scores.items()
        }
        yield made


def _of_evaluation(part: Part, title: str, tokenizer: Path | None) -> list[Source]:
    summary = read_mapping(part.folder / "summary.json")
    choices = summary.get("aggregation")
    rules = {
        name: choice["aggregation"]
        for name, choice in (choices.items() if isinstance(choices, dict) else ())
        if isinstance(choice, dict) and choice.get("aggregation") in AGGREGATIONS
    }
    order = {name: place for place, name in enumerate(rules)}  # as the evaluation names its scorers
    found = []
    for pool, scores, what in _POOLS:
        paths = sorted((part.folder / scores).glob("*.jsonl"))
        files = {p.stem: p for p in sorted(paths, key=lambda p: order.get(p.stem, len(order)))}
        if (part.folder / pool / "meta.json").is_file():
            found.append(Source(f"{title}: {what}", "pool", part.folder / pool, files, rules, tokenizer))
    for folder in sorted([*part.folder.glob("beams/*"), *part.folder.glob("searches/*")]):
        if (folder / "meta.json").is_file():
            name = f"beam {folder.name}" if folder.parent.name == "beams" else folder.name
            found.append(Source(f"{title}: {name}", "search", folder, {}, {}, tokenizer))
    return found


def _if_any(folder: Path, title: str, kind: str, tokenizer: Path | None) -> list[Source]:
    is_there = any(folder.glob("wave-*.jsonl"))
    return [Source(title, kind, folder, {}, {}, tokenizer)] if is_there else []


def _tokenizer(part: Part) -> Path | None:
    model = part.config.get("model")
    if not isinstance(model, str) or not model:
        return None
    file = Path(model) / "tokenizer.json"
    return file if file.is_file() else None


def _waves(folder: Path) -> list[int]:
    numbers = (path.stem.removeprefix("wave-") for path in folder.glob("wave-*.jsonl"))
    return sorted(int(number) for number in numbers if number.isdigit())


def _rows(source: Source) -> Iterator[tuple[Trajectory, dict[str, Any]]]:
    store = TrajectoryStore.open(source.folder)
    for wave in _waves(source.folder):
        of_wave = {"it": wave} if source.kind == "rl" else {}
        for trajectory in store.read_wave(wave):
            yield trajectory, of_wave


def _search_rows(source: Source) -> Iterator[tuple[Trajectory, dict[str, Any]]]:
    store = SearchStore.open(source.folder)

    def decode(row: Mapping[str, Any]) -> tuple[Trajectory, dict[str, Any]]:
        return from_row(row), {"nodes": [_node(node) for node in row.get("nodes", ())], "rank": row["score"]}

    for wave in _waves(source.folder):
        yield from store.read_wave_rows(wave, decode)


def _node(node: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("number", "parent", "round", "actions", "rank", "samples", "kept", "stop", "success", "chosen")
    return {name: _rounded(node.get(name)) for name in kept}


def _scores(path: Path) -> dict[tuple[str, int], StepScores]:
    try:
        found = read_scores(path)
    except (RlprmError, OSError):
        return {}
    return {(row.task, row.sample): row.scores for row in found if row.scores is not None}


def _scored(scores: StepScores | None, rule: str) -> dict[str, Any] | None:
    if scores is None:
        return None
    rank = None
    if scores.values:
        rank = AGGREGATIONS[rule](scores.values)
    return {
        "i": _rounded(scores.initial), "v": _rounded(scores.values), "p": _rounded(scores.progress),
        "r": _rounded(rank),
    }  # fmt: skip


def _candidate(trajectory: Trajectory, more: Mapping[str, Any]) -> dict[str, Any]:
    before, turns = _turns(trajectory.messages)
    steps = []
    for step, (said, answers) in zip(trajectory.steps, turns, strict=False):
        inside = range(step.start, min(step.end + 1, len(trajectory.token_ids)))
        made: dict[str, Any] = {"a": _text(said), "o": [_text(answer) for answer in answers]}
        if step.action != said["content"]:
            made["act"] = step.action
        if not step.valid:
            made["bad"] = True
        if trajectory.exact:
            logprobs = [trajectory.logprobs[i] for i in inside]
            made |= {"p": _rounded(math.exp(min(0.0, math.fsum(logprobs)))), "lp": _rounded(logprobs)}
            made["ids"] = [trajectory.token_ids[i] for i in inside]
        steps.append(made)
    return {
        "t": trajectory.task.id, "n": trajectory.sample, "ok": trajectory.outcome.success,
        "o": _rounded(trajectory.outcome.score), "stop": trajectory.stop.value if trajectory.stop else "",
        "tok": trajectory.action_tokens, "m": [_text(message) for message in before], "steps": steps,
        **({"err": trajectory.error} if trajectory.error else {}), **more,
    }  # fmt: skip


def _turns(messages: Sequence[Message]) -> tuple[list[Message], list[tuple[Message, list[Message]]]]:
    """Split a conversation into what comes before the first action, and each action with what answers it."""
    before: list[Message] = []
    turns: list[tuple[Message, list[Message]]] = []
    for message in messages:
        if message["role"] == "assistant":
            turns.append((message, []))
        elif turns:
            turns[-1][1].append(message)
        else:
            before.append(message)
    return before, turns


def _text(message: Message) -> dict[str, Any]:
    made: dict[str, Any] = {"c": message["content"]}
    if message["role"] not in ("user", "assistant"):
        made["r"] = message["role"]
    if "thought" in message:
        made["th"] = message["thought"]
    if "tool_calls" in message:
        made["calls"] = [f"{call['name']}({json.dumps(call['arguments'])})" for call in message["tool_calls"]]
    return made


def _rounded(value: Any) -> Any:
    """Round numbers for the page; what is not finite has no place in JSON."""
    if isinstance(value, bool) or value is None or isinstance(value, (int, str)):
        return value
    if isinstance(value, float):
        return round(value, _DIGITS) if math.isfinite(value) else None
    return [_rounded(entry) for entry in value]
