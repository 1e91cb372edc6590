"""What is checked alike of everything that a user gives: paths in settings, texts in data."""

from __future__ import annotations

import contextlib
import reprlib
from pathlib import Path
from typing import Any

from rlprm.errors import ConfigError

__all__ = ["encodable", "user_path"]

_SHOWN = 80  # characters of a path in an error


def user_path(setting: str, value: Any) -> Path:
    """Return a path that the user gave, with ``~`` and ``~name`` replaced by the home folder.

    Nothing needs to be there.

    Args:
        setting: What errors call it, for instance ``"math data"``.
        value: What was given.

    Raises:
        ConfigError: for what cannot be a path: no text or an empty one, a home of nobody, a name that is
            too long, a folder that may not be entered.
    """
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{setting}: got {value!r}, allowed: a path")
    shown = value if len(value) <= _SHOWN else value[:_SHOWN] + "..."
    try:
        path = Path(value).expanduser()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.stat()
    except (OSError, ValueError, RuntimeError) as error:  # the latter two: half a character; nobody's home
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{setting}: got {shown!r}, which cannot be a path here: {reason}") from error
    return path


def encodable(text: str) -> str:
    r"""Return a text as it is.

    Raises:
        ValueError: where it holds half a surrogate pair, as JSON's ``"\ud800"`` does: no tokenizer and no
            file takes it.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"half a surrogate pair, which is no text: {reprlib.repr(text)}") from error
    return text
