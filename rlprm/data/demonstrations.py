"""Expert demonstrations: tasks → messages, several processes at once."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.pool import Pool

from rlprm import envs
from rlprm.data.formats import TOOL_CALL, load_format
from rlprm.data.formats.tool_call import call_of
from rlprm.errors import DemonstrationError
from rlprm.types import End, Message, Task, Tool

_SAFE_PATH = "PYTHONSAFEPATH"


@dataclass(frozen=True)
class Demonstration:
    """One solved task as a chat: opening, first observation, action, observation, ..., last action."""

    task: Task
    messages: tuple[Message, ...]
    first_action: int
    """Index of the first action among the messages."""
    unlearned: frozenset[int] = frozenset()
    """Indices of later actions that are shown and not to be learned (an expert's are all to be)."""
    tools: tuple[Tool, ...] = ()
    """What the agent may call; its actions are calls then."""


def demonstrate(
    task: Task, *, end: End, prompt: str, action_format: str, thoughts: bool = False
) -> Demonstration | None:
    """Let the expert of a task's environment solve it; None where it fails.

    Args:
        task: to solve.
        end: who ends the episode.
        prompt: style of the instructions.
        action_format: how actions are written.
        thoughts: whether a short thought of the environment's ``explain`` stands before each action.
    """
    module = envs.of_task(task)
    tools: tuple[Tool, ...] = ()
    if action_format == TOOL_CALL:
        tools = envs.tools_of(module, task.environment, end)
    try:
        actions = module.demonstrate(task, end=end)
    except DemonstrationError:
        return None
    env = module.make(task, end=end)
    messages = module.opening(end=end, style=prompt)
    messages = [*messages, Message(role="user", content=env.reset())]
    first_action = len(messages)
    reasons = module.explain(task, actions) if thoughts else [""] * len(actions)
    for action, reason in zip(actions, reasons, strict=True):
        turn = env.step(action)
        messages.append(_said(action, reason, action_format, tools))
        role = "tool" if tools else "user"
        answers = [Message(role=role, content=turn.observation)]
        messages += [*answers, *(Message(role="user", content=text) for text in turn.more)]
    last = max(i for i, message in enumerate(messages) if message["role"] == "assistant")
    return Demonstration(task, tuple(messages[: last + 1]), first_action, tools=tools)


def _said(action: str, thought: str, action_format: str, tools: Sequence[Tool]) -> Message:
    if tools:
        return Message(role="assistant", content="", tool_calls=[call_of(action, tools)])
    write = load_format(action_format).write
    return Message(role="assistant", content=write(action, thought) if thought else write(action))


def _start_pool(workers: int, names: Sequence[str]) -> Pool:
    """Start workers that have loaded these environments.

    A worker starts with the current folder in front of its import path, unless PYTHONSAFEPATH is set; its
    standard library would be the user's ``random.py``. The worker then takes over the path of this process.
    """
    before = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"
    try:
        return multiprocessing.get_context("spawn").Pool(workers, _load_all, (names,))
    finally:
        if before is None:
            del os.environ[_SAFE_PATH]
        else:
            os.environ[_SAFE_PATH] = before


def _load_all(names: Sequence[str]) -> None:
    for name in names:
        envs.load(name)


def demonstrate_all(
    tasks: Sequence[Task],
    *,
    end: End,
    prompt: str,
    action_format: str,
    workers: int,
    thoughts: bool = False,
) -> Iterator[Demonstration | None]:
    """Demonstrate many tasks; yields one result per task, in order."""
    work = partial(demonstrate, end=end, prompt=prompt, action_format=action_format, thoughts=thoughts)
    if workers <= 1:
        yield from map(work, tasks)
        return
    names = sorted({task.environment for task in tasks})
    for task in {task.environment: task for task in tasks}.values():
        envs.of_task(task)  # a worker may load only the modules that are loaded here
    # spawn: forking a process whose libraries have started threads may deadlock
    with _start_pool(workers, names) as pool:
        yield from pool.imap(work, tasks, chunksize=16)
