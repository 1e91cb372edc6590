"""Thoughts that stand in the text of a message, between markers."""

from __future__ import annotations

from rlprm.data.rendering import ChatRenderer
from rlprm.data.thoughts import CLOSE, OPEN, split_thought

__all__ = ["marked_thought"]


def marked_thought(content: str, renderer: ChatRenderer) -> tuple[str | None, str]:
    """Return the thought of a text, None without one, and the rest.

    A text without markers has no thought, even if the named tokenizer's template opens one: the model of an
    endpoint need not be the tokenizer's.

    Args:
        content: of a message.
        renderer: of the named tokenizer. If its template does not think, a closing marker alone is text.
    """
    opens = content.lstrip().startswith(OPEN)
    if not opens and not (renderer.thinks and CLOSE in content):
        return None, content
    return split_thought(content)
