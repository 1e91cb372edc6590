"""Thoughts in an agent's message: what stands between ``<think>`` and ``</think>`` before the action."""

from __future__ import annotations

__all__ = ["CLOSE", "OPEN", "has_thought", "split_thought", "with_thought"]

OPEN, CLOSE = "<think>", "</think>"


def has_thought(text: str) -> bool:
    """Whether a text begins with a thought between both markers, as the messages of other frameworks do."""
    return text.lstrip().startswith(OPEN) and CLOSE in text


def with_thought(thought: str, rest: str) -> str:
    """Write a thought and the rest of a message as one text, which :func:`split_thought` splits again."""
    return f"{OPEN}\n{thought}\n{CLOSE}\n\n{rest}"


def split_thought(text: str, *, opened: bool = False) -> tuple[str, str]:
    r"""Split the thought off a message.

    A message without markers has no thought. If only the closing marker is there, the generation prompt
    wrote the opening one, and the thought begins with the message. A thought that is not closed was cut by
    the length limit: nothing is left for the action. The first closing marker counts.

    Args:
        text: of the whole message.
        opened: whether the generation prompt ends within a thought.

    Returns:
        The thought without its markers, and the rest of the message. Line breaks at the border of the two are
        in neither. ``"<think>\nleft\n</think>\n\ngo"`` gives ``("left", "go")``.
    """
    body = text.lstrip()
    if body.startswith(OPEN):
        body = body.removeprefix(OPEN)
    elif opened or CLOSE in text:
        body = text
    else:
        return "", text
    thought, _, rest = body.partition(CLOSE)
    return thought.strip("\r\n"), rest.lstrip("\r\n")
