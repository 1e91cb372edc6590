"""Text that a file and a request can hold."""

from __future__ import annotations

__all__ = ["encodable"]


def encodable(text: str) -> str:
    """Replace halves of surrogate pairs by ``?``: an escape may write them, and they are no text."""
    return text.encode("utf-8", "replace").decode("utf-8")
