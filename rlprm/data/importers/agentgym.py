"""AgentGym's trajectories: AgentTraj's conversations as demonstrations, and ours in its format.

    {"item_id": "webshop_5238",
     "conversations": [{"from": "human", "loss": null, "value": "You are web shopping. ..."},
                       {"from": "gpt", "loss": false, "value": "Ok."},
                       {"from": "human", "loss": null, "value": "WebShop [SEP] Instruction: ..."},
                       {"from": "gpt", "loss": true, "value": "Thought: ... Action: search[...]"}, ...]}

What has ``loss: true`` is learned; the rest is read. ``from: system`` may come first.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlprm.data.demonstrations import Demonstration
from rlprm.data.encodable import encodable
from rlprm.data.formats import TEXT_FORMATS, load_format
from rlprm.data.rerender import split_turns, text_of
from rlprm.data.thoughts import has_thought, split_thought, with_thought
from rlprm.envs.agentgym.items import index_in, read_items
from rlprm.errors import ConfigError, DataError
from rlprm.runtime.files import write_atomically
from rlprm.types import End, Message, Split, Task, Trajectory

__all__ = [
    "digest",
    "read_demonstrations",
    "require_end",
    "require_format",
    "to_demonstration",
    "to_item",
    "with_opening",
    "without",
    "write_items",
]

_ROLES = {"human": "user", "gpt": "assistant", "system": "system"}
_NAMES = {role: name for name, role in _ROLES.items()}
_ACKNOWLEDGEMENT = re.compile(r"ok\b", re.IGNORECASE)


def read_demonstrations(source: str, environment: str, name: str) -> list[Demonstration]:
    """Read the demonstrations of an environment.

    Args:
        source: file, folder or hub id, see :func:`rlprm.envs.agentgym.items.read_items`.
        environment: what their tasks are said to belong to.
        name: the environment's in AgentGym; the items' ids begin with it.

    Raises:
        ArtifactError: if there is no such file, folder or data set.
        DataError: if it is damaged or has none; says where.
    """
    return [to_demonstration(item, environment, where) for where, item in read_items(source, name)]


def to_demonstration(item: Mapping[str, Any], environment: str, where: str = "an item") -> Demonstration:
    """Turn an item into a demonstration; what follows its last reply is left out.

    Raises:
        DataError: for an item of another form, or with nothing to learn.
    """
    identity, conversation = item.get("item_id"), item.get("conversations")
    if not isinstance(identity, str) or not isinstance(conversation, list):
        raise DataError(f"{where} is no trajectory: expected a text 'item_id' and a list 'conversations'")
    where = f"{where} ({_shown(identity)})"
    messages = [_message(entry, f"{where}, message {i}") for i, entry in enumerate(conversation, 1)]
    while messages and messages[-1]["role"] != "assistant":
        messages.pop()
    _require_turns(messages, where)
    learned = [i for i, entry in enumerate(conversation) if entry.get("loss") is True]
    if not learned:
        raise DataError(f'{where}: no message has "loss": true, so there is nothing to learn')
    said = range(learned[0], len(messages), 2)
    return Demonstration(
        task=Task(environment, identity, Split.TRAIN),
        messages=tuple(messages),
        first_action=learned[0],
        unlearned=frozenset(said) - frozenset(learned),
    )


def to_item(trajectory: Trajectory) -> dict[str, Any]:
    """Turn a trajectory into an item, as far as its last action; its actions are what is to be learned.

    AgentGym's own fields come first; score and success go along for whoever wants to choose.

    Raises:
        DataError: if its messages do not hold its steps, or it has none.
    """
    prompt, turns = split_turns(trajectory)
    if not turns:
        raise DataError(f"task {trajectory.task.id}, sample {trajectory.sample}: a trajectory without a step")
    conversation = [_entry(m["role"], m["content"], False) for m in prompt]
    for observations, message in turns:
        if message.get("tool_calls"):
            raise DataError(
                f"task {trajectory.task.id}, sample {trajectory.sample}: calls of tools cannot be written in "
                "AgentGym's format, which has text alone"
            )
        if observations:
            conversation.append(_entry("user", text_of(observations), False))
        text = message["content"]
        said = with_thought(message["thought"], text) if "thought" in message else text
        conversation.append(_entry("assistant", said, True))
    name = trajectory.task.environment.rpartition(".")[2]
    identity = trajectory.task.id
    return {
        "item_id": identity if identity.startswith(f"{name}_") else f"{name}_{identity}",
        "conversations": conversation,
        "reward": float(trajectory.outcome.score),
        "success": bool(trajectory.outcome.success),
    }


def write_items(path: str | Path, trajectories: Sequence[Trajectory]) -> None:
    """Write trajectories as a JSON list, an item a line.

    Raises:
        DataError: if one cannot be written so.
    """
    lines = ",\n".join(json.dumps(to_item(trajectory), ensure_ascii=False) for trajectory in trajectories)
    write_atomically(Path(path), f"[\n{lines}\n]\n")


def with_opening(demonstration: Demonstration, opening: Sequence[Message]) -> Demonstration:
    """Return a demonstration with other instructions in the place of its own.

    Its own are what stands before the first observation: a system message, and a first exchange that is not
    learned and whose reply begins with OK, as AgentGym's do.
    """
    messages, first = demonstration.messages, demonstration.first_action
    start = int(messages[0]["role"] == "system")
    if first >= start + 3 and _ACKNOWLEDGEMENT.match(messages[start + 1]["content"]):
        start += 2
    shift = len(opening) - start
    return replace(
        demonstration,
        messages=(*opening, *messages[start:]),
        first_action=first + shift,
        unlearned=frozenset(i + shift for i in demonstration.unlearned),
    )


def without(demonstrations: Sequence[Demonstration], indices: Collection[int]) -> list[Demonstration]:
    """Leave out the demonstrations of some tasks, by the data index with which their ids end."""
    return [d for d in demonstrations if index_in(d.task.id) not in indices]


def require_format(demonstrations: Sequence[Demonstration], action_format: str) -> None:
    """Refuse demonstrations whose actions are written in another format.

    A format fits if it reads an action in most of the messages. ``action_only`` takes any text for an action,
    and fits if no other format does.

    Raises:
        ConfigError: naming the formats that fit.
    """
    said = [
        d.messages[i]["content"] for d in demonstrations for i in range(d.first_action, len(d.messages), 2)
    ]
    marked = (load_format(name) for name in TEXT_FORMATS if name != "action_only")
    fitting = [f.name for f in marked if sum(bool(f.parse(text).action) for text in said) > len(said) / 2]
    if action_format not in (fitting or ["action_only"]):
        allowed = ", ".join(fitting or ["action_only"])
        raise ConfigError(
            f"action_format: got {action_format}, allowed: {allowed}, as these demonstrations are"
        )


def require_end(demonstrations: Sequence[Demonstration], end: End, action_format: str) -> None:
    """Refuse demonstrations that end in the other way, where ``finish`` makes the difference.

    Raises:
        ConfigError: naming it; AgentGym's own are ended by the environment.
    """
    read = load_format(action_format).parse
    finished = sum(read(d.messages[-1]["content"]).action == "finish" for d in demonstrations)
    ended = End.DECLARED if finished > len(demonstrations) / 2 else End.ON_SUCCESS
    if ended is not end:
        raise ConfigError(
            f"end: got {end.value}, allowed: {ended.value}, as {finished} of these {len(demonstrations)} "
            "demonstrations end with finish"
        )


def digest(demonstrations: Sequence[Demonstration]) -> str:
    """Identify demonstrations by their content."""
    rows = [[d.task.id, d.messages, d.first_action, sorted(d.unlearned)] for d in demonstrations]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:12]


def _message(entry: Any, where: str) -> Message:
    if not isinstance(entry, dict):
        raise DataError(
            f"{where}: got {type(entry).__name__}, allowed: an object with 'from', 'loss' and 'value'"
        )
    sender, value, loss = entry.get("from"), entry.get("value"), entry.get("loss")
    if not isinstance(sender, str) or sender not in _ROLES:
        raise DataError(f"{where}: from: got {_shown(sender)}, allowed: {', '.join(_ROLES)}")
    if not isinstance(value, str):
        raise DataError(f"{where}: value: got {_shown(value)}, allowed: text")
    if loss is not None and not isinstance(loss, bool):
        raise DataError(f"{where}: loss: got {_shown(loss)}, allowed: null, false, true")
    if loss and sender != "gpt":
        raise DataError(
            f"{where}: loss: got true for {sender}, allowed: null, false (only replies are learned)"
        )
    text = encodable(value)
    if sender == "gpt" and has_thought(text):
        thought, rest = split_thought(text)
        return Message(role="assistant", content=rest, thought=thought)
    return Message(role=_ROLES[sender], content=text)


def _require_turns(messages: Sequence[Message], where: str) -> None:
    """Refuse a conversation that is not (system,) user, assistant, user, assistant, ..."""
    start = int(bool(messages) and messages[0]["role"] == "system")
    for i, message in enumerate(messages[start:]):
        expected = "assistant" if i % 2 else "user"
        if message["role"] != expected:
            raise DataError(
                f"{where}, message {start + i + 1}: from: got {_NAMES[message['role']]}, "
                f"allowed: {_NAMES[expected]} (human and gpt take turns)"
            )


def _entry(role: str, content: str, learned: bool) -> dict[str, Any]:
    """Write a message as AgentGym does: replies are learned or not, and for others there is no question."""
    return {"from": _NAMES[role], "loss": learned if role == "assistant" else None, "value": content}


def _shown(value: Any) -> str:
    quote = repr(value)
    return quote if len(quote) <= 100 else quote[:100] + "..."
