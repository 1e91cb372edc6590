"""Text that a file and a request can hold."""

from __future__ import annotations

from typing import Any

__all__ = ["encodable", "encodable_values"]


def encodable(text: str) -> str:
    """Replace halves of surrogate pairs by ``?``: an escape may write them, and they are no text."""
    return text.encode("utf-8", "replace").decode("utf-8")


def encodable_values(value: Any) -> Any:
    """Return a JSON value in which every text and every key is :func:`encodable`."""
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, dict):
        return {encodable_values(key): encodable_values(inner) for key, inner in value.items()}
    return [encodable_values(inner) for inner in value] if isinstance(value, list) else value
