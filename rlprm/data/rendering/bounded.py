"""Whether a chat template comes to an end: its probes are rendered in a process of their own first.

Jinja has no bound on time or memory, and a loop within one process cannot be stopped from outside. The
process imports nothing but Jinja and starts within a tenth of a second. Its environment resembles that of
transformers. A template that fails there is not refused here: rendering the template shows the error.
A template without assignments, products and calls, whose only loop is over messages, needs no process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

__all__ = ["refusal"]

SECONDS, WALL_SECONDS, BYTES = 5, 60, 1 << 30
"""Limits: time of a processor, time of a clock, and memory."""

_TOO_BIG = 3
_GROWS = (
    nodes.Assign, nodes.AssignBlock, nodes.Mul, nodes.Pow, nodes.Call, nodes.CallBlock, nodes.Macro,
    nodes.FilterBlock, nodes.Include, nodes.Import, nodes.Extends,
)  # fmt: skip


def refusal(source: str, variables: dict[str, Any], conversations: Sequence[Any]) -> str | None:
    """Return why a template does not end within the limits; None if it ends.

    Args:
        source: the template's text.
        variables: what it reads beside the messages.
        conversations: the messages of each probe.
    """
    return (
        None
        if _is_plain(source)
        else _refusal(json.dumps([source, variables, list(conversations), SECONDS, BYTES]))
    )


@lru_cache(64)
def _refusal(job: str) -> str | None:
    try:
        done = subprocess.run(
            [sys.executable, "-I", __file__],
            input=job, capture_output=True, text=True, check=False, timeout=WALL_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"it takes more than {WALL_SECONDS} seconds"
    if done.returncode == _TOO_BIG:
        return f"it takes more than {BYTES >> 20} MiB of memory"
    if done.returncode < 0:  # killed by a limit
        return f"it takes more than {SECONDS} seconds of a processor"
    return None


class _Generation(Extension):
    """The tag of transformers that marks the assistant's tokens."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _is_plain(source: str) -> bool:
    try:
        tree = _environment().parse(source)
    except TemplateError:
        return True  # rendering it shows the error
    loops = list(tree.find_all(nodes.For))
    return next(tree.find_all(_GROWS), None) is None and all(
        isinstance(loop.iter, nodes.Name)
        and loop.iter.name == "messages"
        and not loop.recursive
        and next(iter(loop.find_all(nodes.For)), None) is None
        for loop in loops
    )


def _environment() -> ImmutableSandboxedEnvironment:
    def fail(message: str) -> None:
        raise ValueError(message)

    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    made.filters["tojson"] = lambda value, **_: json.dumps(value)
    made.globals["raise_exception"] = fail
    return made


def _child() -> int:
    """Render every conversation; errors other than those of memory are left to the caller."""
    source, variables, conversations, seconds, size = json.loads(sys.stdin.read())
    _limit(seconds, size)
    try:
        template = _environment().from_string(source)
        for messages in conversations:
            for in_parts in (False, True):
                for generate in (True, False):
                    try:
                        given = _parts(messages) if in_parts else messages
                        template.render(messages=given, add_generation_prompt=generate, **variables)
                    except MemoryError:
                        raise
                    except Exception:
                        pass
    except MemoryError:
        return _TOO_BIG
    except Exception:
        return 0
    return 0


def _parts(messages: Any) -> Any:
    return [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages]


def _limit(seconds: int, size: int) -> None:
    try:
        import resource
    except ImportError:  # no such limits on this system: the caller's clock is left
        return
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


if __name__ == "__main__":
    sys.exit(_child())
