"""How an agent writes its action into a message; each module in this package is one format.

A format reads an action out of a message (``parse``) and writes an action into one (``write``, for
demonstrations). ``tool_call`` reads calls of tools instead of text. The settings offer what lies in this
package, so adding a format is adding a file.
"""

from __future__ import annotations

from rlprm.components import available_in, load_component
from rlprm.data.formats.base import TWO_ACTIONS, Format, Parsed, without_continuation
from rlprm.errors import UnknownComponentError

__all__ = [
    "FORMATS",
    "REQUIRED",
    "TEXT_FORMATS",
    "THOUGHT_FORMATS",
    "TOOL_CALL",
    "TWO_ACTIONS",
    "Format",
    "Parsed",
    "check_format",
    "load_format",
    "without_continuation",
]

FORMATS = tuple(available_in(__name__, exclude=frozenset({"base"})))
"""Names of the formats."""
TOOL_CALL = "tool_call"
"""The format whose actions are calls in the model's own syntax, not text."""
TEXT_FORMATS = tuple(name for name in FORMATS if name != TOOL_CALL)
"""Names of the formats whose actions are text."""
REQUIRED = ("parse", "write")
"""What a module of this package defines; see :class:`rlprm.data.formats.base.Format`."""


def check_format(name: str) -> str:
    """Return a name if there is such a format, of text or not.

    Raises:
        UnknownComponentError: listing the formats there are.
    """
    if name not in FORMATS:
        raise UnknownComponentError(f"unknown action format {name!r}; known: {', '.join(FORMATS)}")
    return name


def load_format(name: str) -> Format:
    """Return a format of text by name.

    Raises:
        UnknownComponentError: listing the formats of text there are.
    """
    if name not in TEXT_FORMATS:
        raise UnknownComponentError(f"unknown action format {name!r}; known: {', '.join(TEXT_FORMATS)}")
    module = load_component(__name__, name, "action format", needs=REQUIRED)
    return Format(name, module.parse, module.write)


THOUGHT_FORMATS = tuple(name for name in TEXT_FORMATS if load_format(name).holds_thoughts)
"""Names of the formats whose messages have a place for a thought."""
